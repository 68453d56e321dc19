"""POST /v1/embeddings and /embeddings, as OpenAI defines them: https://platform.openai.com/docs/api-reference/embeddings"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tensors import Floats
from heddle.v1 import inference_pb2
from heddle.v1.tensor_pb2 import Tensor
from http_gateway.endpoint import post
from http_gateway.errors import InWordsOf
from http_gateway.long_list import LongList
from http_gateway.message import Answer, Request
from http_gateway.routes.cost import COST_HEADERS, cost_headers
from http_gateway.routes.inputs import Inputs, TEIBody, TokenIds, add_inputs, check_count, listed
from http_gateway.routes.model_routes import ModelRoutes
from http_gateway.routing import Route

TOKEN_IDS_REFUSED = (
    "input holds token ids, and those of another model's tokenizer would give meaningless vectors: send text "
    "(in LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)"
)


class EmbeddingsBody(TEIBody, kw_only=True):
    """OpenAI's, and TEI's fields for truncation. Unknown fields, `user` among them, are ignored."""

    input: Inputs
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)] | None = None
    task: str | None = None  # Jina's, of models with an adapter for each


class Embedding(msgspec.Struct):
    object: Literal["embedding"]
    embedding: list[float] | str  # base64 of float32, little-endian
    index: int


class Usage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(msgspec.Struct):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


IN_WORDS_OF_LIST = InWordsOf({"inputs": "input"})
IN_WORDS_OF_ONE = InWordsOf({"inputs": "input"}, is_list=False)

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
        """Embeddings, as OpenAI's clients ask for them."""
        model = self.models.find(body.model)
        inputs, is_list = listed(body.input)
        item = self._item(inputs, body, is_list=is_list)
        with IN_WORDS_OF_LIST if is_list else IN_WORDS_OF_ONE:
            answer = (await model.client.infer(item, request.options())).embed
        vectors, usage = answer.embeddings, answer.usage
        row = (base64_rows if body.encoding_format == "base64" else float_rows)(vectors)

        def embedding(index: int) -> dict[str, Any]:
            return {"object": "embedding", "embedding": row(index), "index": index}

        tokens, count = usage.tokens, vectors.shape[0]
        value = {
            "object": "list",
            "data": [embedding(0)] if count == 1 else LongList(range(count), embedding),
            "model": model.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return Answer(value, cost_headers(request, usage, answer.timings))

    def _item(
        self, inputs: Sequence[str | int | TokenIds], body: EmbeddingsBody, *, is_list: bool
    ) -> inference_pb2.InferenceItem:
        """Made in its place: a request that is made by itself would be copied into it."""
        check_count(len(inputs), self.inputs_max, "input", "texts")
        item = inference_pb2.InferenceItem()
        call = item.embed
        add_inputs(call.inputs, inputs, "input", is_list=is_list)
        if not self.trust_token_ids and {*map(type, inputs)} != {str}:
            raise HeddleError(ErrorKind.INVALID_INPUT, TOKEN_IDS_REFUSED, field="input")
        call.truncation = body.truncation
        call.truncation_side = body.truncation_side
        call.dimensions = body.dimensions or 0
        call.task = body.task or ""
        return item


def float_rows(table: Tensor) -> Callable[[int], Floats]:
    return tensors.from_proto(table).__getitem__


def base64_rows(table: Tensor) -> Callable[[int], str]:
    data, row_bytes = memoryview(table.data), 4 * table.shape[1]
    return lambda index: base64_of(data[index * row_bytes : (index + 1) * row_bytes])


def base64_of(row: memoryview) -> str:
    """Of its float32, little-endian. In two thirds of the time that Python's own module takes."""
    encoded: str = msgspec.to_builtins(row)
    return encoded
