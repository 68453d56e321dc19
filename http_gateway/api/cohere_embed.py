"""POST /v1/embed and /v2/embed of Cohere: https://docs.cohere.com/reference/embed"""

from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from http_gateway.api.cohere_meta import meta
from http_gateway.api.cost import COST_HEADERS, cost_headers
from http_gateway.api.families import COHERE
from http_gateway.api.inputs import Dimensions, TokensMax, TruncationFields, check_count
from http_gateway.api.model_routes import ModelRoutes
from http_gateway.api.prompts import prompt_of_type
from http_gateway.api.schemas import Some, Text
from http_gateway.api.supported import merge_aliases, only
from http_gateway.api.vector_format import QUANTIZED, base64_of
from http_gateway.errors import InWordsOf
from http_gateway.web.endpoint import post
from http_gateway.web.long_list import LongList
from http_gateway.web.message import Answer, Request
from http_gateway.web.routing import Route

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]


class TextContent(msgspec.Struct):
    text: str
    type: Literal["text"] = "text"


class Input(msgspec.Struct):
    """The texts of one input are joined by newlines. Images are not supported."""

    content: list[TextContent]


class CohereEmbedFields(TruncationFields, kw_only=True):
    """The fields of both versions. `priority` is ignored. `truncate` defaults to the server's setting: END, unless an
    operator changed it."""

    model: str | None = None
    input_type: str | None = None
    images: Annotated[list[Any] | None, only([], instead="only texts are embedded")] = None
    # Absent: in version 1 one list of floats for each text, in version 2 float.
    embedding_types: list[EmbeddingType] | None = None
    max_tokens: TokensMax | None = None
    output_dimension: Dimensions | None = None

    @property
    def input_tokens_max(self) -> int:
        wishes = {"max_tokens": self.max_tokens, "truncate_prompt_tokens": super().input_tokens_max or None}
        return merge_aliases(wishes) or 0


class CohereEmbedV1Body(CohereEmbedFields, kw_only=True):
    texts: Annotated[list[Text], Some]


class CohereEmbedBody(CohereEmbedFields, kw_only=True):
    texts: Annotated[list[Text], Some] | None = None
    inputs: Annotated[list[Input], Some] | None = None


class CohereEmbedAnswer(msgspec.Struct):
    id: str
    embeddings: dict[EmbeddingType, list[list[float] | str]]  # strings are base64
    texts: list[str]
    meta: dict[str, Any]
    response_type: Literal["embeddings_by_type"]


class CohereEmbedV1Answer(msgspec.Struct):
    """`embeddings` is by type if the request has `embedding_types`. Cohere's clients look at `response_type`."""

    id: str
    embeddings: list[list[float]] | dict[EmbeddingType, list[list[float] | str]]
    texts: list[str]
    meta: dict[str, Any]
    response_type: Literal["embeddings_floats", "embeddings_by_type"]


EXAMPLE_V1 = {"texts": ["What is deep learning?"], "input_type": "search_query"}
EXAMPLE = {**EXAMPLE_V1, "embedding_types": ["float", "int8"]}


class CohereEmbed(ModelRoutes):
    def routes(self) -> list[Route]:
        return [
            post(
                *("/v1/embed", CohereEmbedV1Body, self.embed_v1),
                answer=CohereEmbedV1Answer,
                example=EXAMPLE_V1,
                family=COHERE,
                headers=COST_HEADERS,
            ),
            post(
                *("/v2/embed", CohereEmbedBody, self.embed),
                answer=CohereEmbedAnswer,
                example=EXAMPLE,
                family=COHERE,
                headers=COST_HEADERS,
            ),
        ]

    async def embed_v1(self, body: CohereEmbedV1Body, request: Request) -> Answer:
        """Embeddings of texts, for clients of version 1 of Cohere's API."""
        answer = await self._vectors(body, body.texts, "texts", request)
        table = tensors.from_proto(answer.embeddings)
        if body.embedding_types:
            value = by_type(body.embedding_types, table)
        else:
            value = {"embeddings": LongList(table), "response_type": "embeddings_floats"}
        return cohere_answer(value, body.texts, answer, "1", request)

    async def embed(self, body: CohereEmbedBody, request: Request) -> Answer:
        """Embeddings of texts, in one or several data types."""
        texts, field = texts_of(body)
        answer = await self._vectors(body, texts, field, request)
        value = by_type(body.embedding_types or ["float"], tensors.from_proto(answer.embeddings))
        return cohere_answer(value, texts, answer, "2", request)

    async def _vectors(
        self, body: CohereEmbedFields, texts: list[str], field: str, request: Request
    ) -> inference_pb2.EmbedResponse:
        """`field` is the request's field that holds the texts."""
        check_count(len(texts), self.inputs_max, field, "texts")
        client = self.models.find(body.model).client
        call = inference_pb2.EmbedRequest(
            truncation=body.truncation,
            truncation_side=body.truncation_side,
            input_tokens_max=body.input_tokens_max,
            dimensions=body.output_dimension or 0,
        )
        for text in texts:
            call.inputs.add(text=text)
        if body.input_type:
            call.prompt_name = prompt_of_type(body.input_type, await client.get_model(request.options()))
        with InWordsOf({"inputs": field, "dimensions": "output_dimension"}):
            return await client.embed(call, request.options())


def cohere_answer(
    value: dict[str, Any], texts: list[str], answer: inference_pb2.EmbedResponse, version: str, request: Request
) -> Answer:
    whole = {"id": request.id, **value, "texts": LongList(texts), "meta": meta(version, answer.usage)}
    return Answer(whole, cost_headers(request, answer.usage, answer.timings))


def by_type(types: list[EmbeddingType], table: tensors.Floats) -> dict[str, Any]:
    return {"embeddings": {name: rows_as(name, table) for name in types}, "response_type": "embeddings_by_type"}


def texts_of(body: CohereEmbedBody) -> tuple[list[str], str]:
    """The texts, and the name of their field. Raises INVALID_INPUT unless exactly one of the fields is set."""
    if (body.texts is None) == (body.inputs is None):
        raise HeddleError(ErrorKind.INVALID_INPUT, "texts or inputs is required, and not both", field="texts")
    if body.texts is not None:
        return body.texts, "texts"
    return ["\n".join(part.text for part in item.content) for item in body.inputs or ()], "inputs"


def rows_as(name: EmbeddingType, table: tensors.Floats) -> LongList:
    """`table` is float32 [texts, dimension]."""
    if name == "float":
        return LongList(table)
    if name == "base64":
        return LongList(table, lambda row: base64_of(row.data))
    data_type, dtype = QUANTIZED[name]
    return LongList(table, lambda row: np.frombuffer(tensors.encode(row, data_type), dtype))
