"""POST /v1/embeddings and /embeddings of OpenAI, and /openai/deployments/{model}/embeddings of Azure OpenAI.

https://platform.openai.com/docs/api-reference/embeddings
https://learn.microsoft.com/azure/ai-services/openai/reference#embeddings
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from http_gateway.api.answers import Usage, answer_with_costs, post_with_costs, usage_value
from http_gateway.api.families import OPENAI
from http_gateway.api.request_fields import (
    Dimensions,
    InputList,
    Inputs,
    NonEmpty,
    Text,
    TokenId,
    TokenIds,
    add_inputs,
    check_count,
    find_prompt,
    list_inputs,
    merge_aliases,
)
from http_gateway.api.served_models import ModelRoutes
from http_gateway.api.vector_format import VectorFormatFields
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LazyList, Request
from http_gateway.web.routing import Route
from http_gateway.web.supported_values import only

PATHS = ("/v1/embeddings", "/embeddings")
AZURE_PATH = "/openai/deployments/{model}/embeddings"

TOKEN_IDS_REFUSED = (
    "input holds token ids, and those of another model's tokenizer would give meaningless vectors: send text "
    "(in LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)"
)


class TextObject(msgspec.Struct, forbid_unknown_fields=True):
    """Jina's form of a text. Jina's images are refused as an unknown field."""

    text: Text


class EmbeddingsBody(VectorFormatFields, kw_only=True):
    """OpenAI's fields, and those of vLLM, Infinity, Jina, Voyage and NIM that change the answer. Other fields are
    ignored."""

    input: Text | TextObject | Annotated[list[Text | TokenId | TokenIds | TextObject], NonEmpty]
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
    def inputs_count(self) -> int:
        inputs, _ = list_inputs(unwrap_texts(self.input))
        return len(inputs)

    @property
    def skip_normalization(self) -> bool:
        aliases = {"normalize": self.normalize, "normalized": self.normalized, "use_activation": self.use_activation}
        return merge_aliases(aliases) is False


class Embedding(msgspec.Struct):
    object: Literal["embedding"]
    embedding: list[float] | str  # a string is base64 of little-endian float32, or of the type that was requested
    index: int


class EmbeddingsAnswer(msgspec.Struct):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


RENAME_INPUTS = RenamedFields({"inputs": "input"})
RENAME_INPUT = RenamedFields({"inputs": "input"}, is_list=False)

EXAMPLE = {"input": ["What is deep learning?", "Wie geht es dir?"], "dimensions": 4}


@dataclass(frozen=True, slots=True)
class OpenAIEmbeddings(ModelRoutes):
    trust_token_ids: bool

    def routes(self) -> list[Route]:
        handlers = [*((path, self.embed) for path in PATHS), (AZURE_PATH, self.embed_for_azure)]
        return [
            post_with_costs(path, EmbeddingsBody, handler, answer=EmbeddingsAnswer, example=EXAMPLE, family=OPENAI)
            for path, handler in handlers
        ]

    async def embed(self, body: EmbeddingsBody, request: Request) -> Answer:
        """Embeddings, for OpenAI's clients."""
        response = await self.call_embed(body, request)
        row = body.format.rows(response.embeddings)

        def embedding(index: int) -> dict[str, Any]:
            return {"object": "embedding", "embedding": row(index), "index": index}

        count = response.embeddings.shape[0]
        value = {
            "object": "list",
            "data": [embedding(0)] if count == 1 else LazyList(range(count), embedding),
            "model": self.models.find(body.model).name,
            "usage": usage_value(response.usage),
        }
        return answer_with_costs(value, request, response)

    async def embed_for_azure(self, body: EmbeddingsBody, request: Request) -> Answer:
        """Embeddings by the deployment that the path names, for Azure's clients."""
        body.model = request.parameter  # Azure ignores the body's `model` too
        return await self.embed(body, request)

    async def call_embed(self, body: EmbeddingsBody, request: Request) -> inference_pb2.EmbedResponse:
        model = self.models.find(body.model)
        inputs, is_list = list_inputs(unwrap_texts(body.input))
        item = self._build_item(inputs, body, is_list=is_list)
        if body.input_type:
            prompt = find_prompt(body.input_type, await model.client.get_model(request.options()))
            item.embed.prompt_name = merge_aliases({"prompt_name": body.prompt_name, "input_type": prompt})
        with RENAME_INPUTS if is_list else RENAME_INPUT:
            return (await model.client.infer(item, request.options())).embed

    def _build_item(self, inputs: InputList, body: EmbeddingsBody, *, is_list: bool) -> inference_pb2.InferenceItem:
        """Fills the request inside the item: protobuf would copy a request that is built on its own."""
        check_count(len(inputs), self.inputs_max, "input", "texts")
        item = inference_pb2.InferenceItem()
        call = item.embed
        add_inputs(call.inputs, inputs, "input", is_list=is_list)
        if not self.trust_token_ids and {*map(type, inputs)} != {str}:
            raise HeddleError(ErrorKind.INVALID_INPUT, TOKEN_IDS_REFUSED, field="input")
        body.set_truncation(call)
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
