"""POST /v1/embeddings and /embeddings, as OpenAI defines them: https://platform.openai.com/docs/api-reference/embeddings"""

import struct
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from http_gateway.errors import in_words_of
from http_gateway.json_body import decoded
from http_gateway.message import Request, Response
from http_gateway.rendering import embedding_list
from http_gateway.routing import Route
from http_gateway.served_models import ServedModels

TOKEN_IDS_REFUSED = (
    "input holds token ids, and those of another model's tokenizer would give meaningless vectors: send text "
    "(in LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)"
)

Text = str
TokenIds = list[int]


class EmbeddingsBody(msgspec.Struct):
    """Unknown fields, `user` among them, are ignored; null is the same as absent."""

    input: Text | list[Text | int | TokenIds]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)] | None = None


DECODER = msgspec.json.Decoder(EmbeddingsBody)


class Embeddings:
    def __init__(self, models: ServedModels, *, inputs_max: int, trust_token_ids: bool) -> None:
        self._models = models
        self._inputs_max = inputs_max
        self._trust_token_ids = trust_token_ids

    def routes(self) -> list[Route]:
        return [Route("POST", path, self.embed) for path in ("/v1/embeddings", "/embeddings")]

    async def embed(self, request: Request) -> Response:
        body = decoded(request, DECODER)
        model = self._models.find(body.model)
        inputs = listed(body.input)
        call = self._call(inputs, body.dimensions)
        try:
            answer = await model.client.embed(call, request.options())
        except HeddleError as error:
            raise in_words_of({"inputs": "input"}, error, is_list=inputs is body.input) from error
        vectors, tokens = answer.embeddings.data, answer.usage.tokens
        encoding = body.encoding_format or "float"
        return Response(await embedding_list(vectors, len(inputs), encoding, model=model.name, tokens=tokens))

    def _call(self, inputs: Sequence[Text | int | TokenIds], dimensions: int | None) -> inference_pb2.EmbedRequest:
        if len(inputs) > self._inputs_max:
            message = f"input holds {len(inputs)} texts, the limit is {self._inputs_max}"
            raise HeddleError(ErrorKind.TOO_LARGE, message, field="input")
        call = inference_pb2.EmbedRequest(dimensions=dimensions or 0)
        for index, item in enumerate(inputs):
            if isinstance(item, str):
                call.inputs.add(text=item)
            elif not self._trust_token_ids:
                raise HeddleError(ErrorKind.INVALID_INPUT, TOKEN_IDS_REFUSED, field="input")
            else:
                call.inputs.add(token_ids=packed(item, index))
        return call


def listed(value: Text | list[Text | int | TokenIds]) -> list[Text | int | TokenIds]:
    """Inputs, one by one: a string is one, and so is a flat list of ids."""
    if isinstance(value, str):
        return [value]
    if value and all(isinstance(item, int) for item in value):
        return [value]  # type: ignore[list-item]
    return value


def packed(ids: int | TokenIds, index: int) -> bytes:
    """uint32, little-endian."""
    if isinstance(ids, int):
        message = f"input[{index}]: a token id stands among texts"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="input")
    try:
        return struct.pack(f"<{len(ids)}I", *ids)
    except struct.error:
        message = f"input[{index}]: token ids must be from 0 to 2^32 - 1"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="input") from None
