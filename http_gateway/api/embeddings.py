"""POST /v1/embeddings and /embeddings of OpenAI: https://platform.openai.com/docs/api-reference/embeddings"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from http_gateway.api.cost import COST_HEADERS, cost_headers
from http_gateway.api.inputs import Dimensions, Inputs, TokenIds, add_inputs, check_count, listed
from http_gateway.api.model_routes import ModelRoutes
from http_gateway.api.prompts import prompt_of_type
from http_gateway.api.schemas import Some, Text, TokenId
from http_gateway.api.supported import merge_aliases, only
from http_gateway.api.vector_format import FormattedBody
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LongList, Request
from http_gateway.web.routing import Route, post

TOKEN_IDS_REFUSED = (
    "input holds token ids, and those of another model's tokenizer would give meaningless vectors: send text "
    "(in LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)"
)


class TextObject(msgspec.Struct, forbid_unknown_fields=True):
    """Jina's form of a text. Jina's images are refused as an unknown field."""

    text: Text


class EmbeddingsBody(FormattedBody, kw_only=True):
    """OpenAI's fields, and those of vLLM, Infinity, Jina, Voyage and NIM that change the answer. Other fields are
    ignored."""

    input: Text | TextObject | Annotated[list[Text | TokenId | TokenIds | TextObject], Some]
    user: str | None = None  # fair-share key; see http_gateway.callers
    task: str | None = None  # Jina's, for models with an adapter per task
    dimensions: Dimensions | None = None
    output_dimension: Dimensions | None = None  # Voyage's name for dimensions
    normalize: bool | None = None  # true when absent
    normalized: bool | None = None  # Jina's name for normalize
    use_activation: bool | None = None  # vLLM's name for normalize
    prompt_name: str | None = None  # TEI's
    input_type: str | None = None  # Cohere's, Voyage's and NIM's
    modality: Literal["text"] | None = None
    padding: Literal["do_not_pad"] | None = None
    add_special_tokens: Annotated[bool | None, only(True, instead="send token ids to choose them yourself")] = None
    late_chunking: Annotated[bool | None, only(False, instead="each input gets a vector of its own")] = None
    return_multivector: Annotated[bool | None, only(False, instead="/embed_all gives a vector for each token")] = None
    return_dense: Annotated[bool | None, only(True, instead="/embed takes it")] = None
    return_sparse: Annotated[bool | None, only(False, instead="/embed takes it")] = None
    return_colbert_vecs: Annotated[bool | None, only(False, instead="/embed takes it")] = None
    mm_processor_kwargs: Annotated[dict[str, Any] | None, only({}, instead="only texts are embedded")] = None

    @property
    def skip_normalization(self) -> bool:
        aliases = {"normalize": self.normalize, "normalized": self.normalized, "use_activation": self.use_activation}
        return merge_aliases(aliases) is False


class Embedding(msgspec.Struct):
    object: Literal["embedding"]
    embedding: list[float] | str  # a string is base64 of little-endian float32, or of the type that was requested
    index: int


class Usage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(msgspec.Struct):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


FIELDS_OF_LIST = RenamedFields({"inputs": "input"})
FIELDS_OF_ONE = RenamedFields({"inputs": "input"}, is_list=False)

EXAMPLE = {"input": ["What is deep learning?", "Wie geht es dir?"], "dimensions": 4}


@dataclass(frozen=True, slots=True)
class Embeddings(ModelRoutes):
    trust_token_ids: bool

    def routes(self) -> list[Route]:
        return [
            post(path, EmbeddingsBody, self.embed, answer=EmbeddingsAnswer, example=EXAMPLE, headers=COST_HEADERS)
            for path in ("/v1/embeddings", "/embeddings")
        ]

    async def embed(self, body: EmbeddingsBody, request: Request) -> Answer:
        """Embeddings, for OpenAI's clients."""
        answer = await self.call_embed(body, request)
        vectors, usage = answer.embeddings, answer.usage
        row = body.format.rows(vectors)

        def embedding(index: int) -> dict[str, Any]:
            return {"object": "embedding", "embedding": row(index), "index": index}

        tokens, count = usage.tokens, vectors.shape[0]
        value = {
            "object": "list",
            "data": [embedding(0)] if count == 1 else LongList(range(count), embedding),
            "model": self.models.find(body.model).name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return Answer(value, cost_headers(request, usage, answer.timings))

    async def call_embed(self, body: EmbeddingsBody, request: Request) -> inference_pb2.EmbedResponse:
        model = self.models.find(body.model)
        inputs, is_list = listed(unwrap_texts(body.input))
        item = self._item(inputs, body, is_list=is_list)
        if body.input_type:
            properties = await model.client.get_model(request.options())
            item.embed.prompt_name = merge_aliases(
                {"prompt_name": body.prompt_name, "input_type": prompt_of_type(body.input_type, properties)}
            )
        with FIELDS_OF_LIST if is_list else FIELDS_OF_ONE:
            return (await model.client.infer(item, request.options())).embed

    def _item(
        self, inputs: Sequence[str | int | TokenIds], body: EmbeddingsBody, *, is_list: bool
    ) -> inference_pb2.InferenceItem:
        """Fills the request inside the item: protobuf would copy a request that is built on its own."""
        check_count(len(inputs), self.inputs_max, "input", "texts")
        item = inference_pb2.InferenceItem()
        call = item.embed
        add_inputs(call.inputs, inputs, "input", is_list=is_list)
        if not self.trust_token_ids and {*map(type, inputs)} != {str}:
            raise HeddleError(ErrorKind.INVALID_INPUT, TOKEN_IDS_REFUSED, field="input")
        call.truncation = body.truncation
        call.truncation_side = body.truncation_side
        call.input_tokens_max = body.input_tokens_max
        call.prompt_name = body.prompt_name or ""
        call.skip_normalization = body.skip_normalization
        call.dimensions = merge_aliases({"dimensions": body.dimensions, "output_dimension": body.output_dimension}) or 0
        call.data_type = body.format.data_type
        call.task = body.task or ""
        return item


def unwrap_texts(value: Inputs | TextObject | list[str | int | TokenIds | TextObject]) -> Inputs:
    if isinstance(value, str):
        return value
    if isinstance(value, TextObject):
        return value.text
    if TextObject not in map(type, value):  # as nearly always
        return value  # type: ignore[return-value]
    return [item.text if isinstance(item, TextObject) else item for item in value]
