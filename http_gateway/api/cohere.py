"""Cohere's API except reranking: POST /v1/embed, /v2/embed, /v1/tokenize, /v1/detokenize and /v1/check-api-key.

https://docs.cohere.com/reference
"""

from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2, item_pb2
from http_gateway.api.answers import answer_with_costs, post_with_costs
from http_gateway.api.families import COHERE
from http_gateway.api.request_fields import (
    Dimensions,
    NonEmpty,
    Text,
    TokenId,
    TokensMax,
    TruncationFields,
    check_count,
    find_prompt,
    merge_aliases,
    pack_token_ids,
)
from http_gateway.api.served_models import ModelRoutes
from http_gateway.api.vector_format import QUANTIZED, encode_base64
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LazyList, Request
from http_gateway.web.routing import Description, Route, post, summary_of
from http_gateway.web.supported_values import only

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
    # When absent, version 1 answers one list of floats for each text, and version 2 answers the type float.
    embedding_types: list[EmbeddingType] | None = None
    max_tokens: TokensMax | None = None
    output_dimension: Dimensions | None = None

    @property
    def input_tokens_max(self) -> int:
        aliases = {"max_tokens": self.max_tokens, "truncate_prompt_tokens": super().input_tokens_max or None}
        return merge_aliases(aliases) or 0


class CohereEmbedV1Body(CohereEmbedFields, kw_only=True):
    texts: Annotated[list[Text], NonEmpty]


class CohereEmbedBody(CohereEmbedFields, kw_only=True):
    texts: Annotated[list[Text], NonEmpty] | None = None
    inputs: Annotated[list[Input], NonEmpty] | None = None


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


class CohereTokenizeBody(msgspec.Struct):
    text: str
    model: str | None = None


class CohereTokenizeAnswer(msgspec.Struct):
    tokens: list[int]
    token_strings: list[str]
    meta: dict[str, Any]


class CohereDetokenizeBody(msgspec.Struct):
    tokens: list[TokenId]
    model: str | None = None


class CohereDetokenizeAnswer(msgspec.Struct):
    text: str
    meta: dict[str, Any]


class CheckApiKeyAnswer(msgspec.Struct):
    valid: bool


V1_EXAMPLE = {"texts": ["What is deep learning?"], "input_type": "search_query"}
EXAMPLE = {**V1_EXAMPLE, "embedding_types": ["float", "int8"]}
TEXT = {"text": "What is deep learning?"}
TOKENS = {"tokens": [7592, 2088]}


class Cohere(ModelRoutes):
    def routes(self) -> list[Route]:
        v1_body, v1_answer = CohereEmbedV1Body, CohereEmbedV1Answer
        body, answer = CohereEmbedBody, CohereEmbedAnswer
        tokenize = "/v1/tokenize", CohereTokenizeBody, self.tokenize
        detokenize = "/v1/detokenize", CohereDetokenizeBody, self.detokenize
        check = Description(summary_of(self.check_api_key), None, CheckApiKeyAnswer)
        return [
            post_with_costs("/v1/embed", v1_body, self.embed_v1, answer=v1_answer, example=V1_EXAMPLE, family=COHERE),
            post_with_costs("/v2/embed", body, self.embed, answer=answer, example=EXAMPLE, family=COHERE),
            post(*tokenize, answer=CohereTokenizeAnswer, example=TEXT, family=COHERE),
            post(*detokenize, answer=CohereDetokenizeAnswer, example=TOKENS, family=COHERE),
            Route("POST", "/v1/check-api-key", self.check_api_key, COHERE, described=check),
        ]

    async def embed_v1(self, body: CohereEmbedV1Body, request: Request) -> Answer:
        """Embeddings of texts, for clients of version 1 of Cohere's API."""
        response = await self._call_embed(body, body.texts, "texts", request)
        table = tensors.from_proto(response.embeddings)
        if body.embedding_types:
            value = embeddings_by_type(body.embedding_types, table)
        else:
            value = {"embeddings": LazyList(table), "response_type": "embeddings_floats"}
        return embed_answer(value, body.texts, response, "1", request)

    async def embed(self, body: CohereEmbedBody, request: Request) -> Answer:
        """Embeddings of texts, in one or several data types."""
        texts, field = read_texts(body)
        response = await self._call_embed(body, texts, field, request)
        value = embeddings_by_type(body.embedding_types or ["float"], tensors.from_proto(response.embeddings))
        return embed_answer(value, texts, response, "2", request)

    async def _call_embed(
        self, body: CohereEmbedFields, texts: list[str], field: str, request: Request
    ) -> inference_pb2.EmbedResponse:
        """`field` is the request's field that holds the texts."""
        check_count(len(texts), self.inputs_max, field, "texts")
        client = self.models.find(body.model).client
        call = inference_pb2.EmbedRequest(dimensions=body.output_dimension or 0)
        body.set_truncation(call)
        for text in texts:
            call.inputs.add(text=text)
        if body.input_type:
            call.prompt_name = find_prompt(body.input_type, await client.get_model(request.options()))
        with RenamedFields({"inputs": field, "dimensions": "output_dimension"}):
            return await client.embed(call, request.options())

    async def tokenize(self, body: CohereTokenizeBody, request: Request) -> Answer:
        """The tokens of a text, without special tokens."""
        call = inference_pb2.TokenizeRequest(inputs=[body.text], skip_special_tokens=True)
        with RenamedFields({"inputs": "text"}, place_of=lambda _: "text"):
            response = await self.models.find(body.model).client.tokenize(call, request.options())
        tokens = response.results[0].tokens
        ids, strings = LazyList(tokens, lambda token: token.id), LazyList(tokens, lambda token: token.text)
        return Answer({"tokens": ids, "token_strings": strings, "meta": meta_value("1")})

    async def detokenize(self, body: CohereDetokenizeBody, request: Request) -> Answer:
        """The text of token ids, without special tokens."""
        call = inference_pb2.DecodeRequest(token_ids=[pack_token_ids(body.tokens, "tokens", "tokens")])
        with RenamedFields({"token_ids": "tokens"}, place_of=lambda _: "tokens"):
            response = await self.models.find(body.model).client.decode(call, request.options())
        return Answer({"text": response.texts[0], "meta": meta_value("1")})

    async def check_api_key(self, _: Request) -> Answer:
        """Answers that the key is valid; an invalid key gets a 401, as on every route."""
        return Answer({"valid": True})


def embed_answer(
    value: dict[str, Any], texts: list[str], response: inference_pb2.EmbedResponse, version: str, request: Request
) -> Answer:
    meta = meta_value(version, response.usage)
    return answer_with_costs({"id": request.id, **value, "texts": LazyList(texts), "meta": meta}, request, response)


def embeddings_by_type(types: list[EmbeddingType], table: tensors.Floats) -> dict[str, Any]:
    return {"embeddings": {name: typed_rows(name, table) for name in types}, "response_type": "embeddings_by_type"}


def typed_rows(name: EmbeddingType, table: tensors.Floats) -> LazyList:
    """`table` is float32 [texts, dimension]."""
    if name == "float":
        return LazyList(table)
    if name == "base64":
        return LazyList(table, lambda row: encode_base64(row.data))
    data_type, dtype = QUANTIZED[name]
    return LazyList(table, lambda row: np.frombuffer(tensors.encode(row, data_type), dtype))


def read_texts(body: CohereEmbedBody) -> tuple[list[str], str]:
    """The texts, and the name of their field. Raises INVALID_INPUT unless exactly one of the fields is set."""
    if (body.texts is None) == (body.inputs is None):
        raise HeddleError(ErrorKind.INVALID_INPUT, "texts or inputs is required, and not both", field="texts")
    if body.texts is not None:
        return body.texts, "texts"
    return ["\n".join(part.text for part in item.content) for item in body.inputs or ()], "inputs"


def meta_value(
    version: str, usage: item_pb2.Usage | None = None, billed: dict[str, int] | None = None
) -> dict[str, Any]:
    """The `meta` of all of Cohere's answers. `version` is the API's. `billed` replaces the tokens as billed units.
    Without `usage` there are no units."""
    value: dict[str, Any] = {"api_version": {"version": version}}
    if usage:
        value["billed_units"] = billed or {"input_tokens": usage.tokens}
        value["tokens"] = {"input_tokens": usage.tokens, "output_tokens": 0}
    return value
