"""POST /tokenize and /decode of TEI: texts to tokens and back. Needs no engine."""

from typing import Annotated, Any

import msgspec

from heddle.v1 import inference_pb2
from http_gateway.api.families import TEI
from http_gateway.api.inputs import check_count, listed, packed
from http_gateway.api.model_routes import ModelRoutes
from http_gateway.api.schemas import Some, TokenId
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LongList, Request
from http_gateway.web.routing import Route, post


class TokenizeBody(msgspec.Struct):
    inputs: str | Annotated[list[str], Some]
    add_special_tokens: bool | None = None  # true when absent
    prompt_name: str | None = None
    model: str | None = None


class Token(msgspec.Struct):
    id: int
    text: str
    special: bool
    start: int | None  # bytes of UTF-8; null for special tokens
    stop: int | None


class DecodeBody(msgspec.Struct):
    ids: Annotated[list[TokenId | list[TokenId]], Some]
    skip_special_tokens: bool | None = None  # true when absent
    model: str | None = None


class Tokens(ModelRoutes):
    def routes(self) -> list[Route]:
        text, ids = {"inputs": "What is deep learning?"}, {"ids": [101, 7592, 102]}
        return [
            post("/tokenize", TokenizeBody, self.tokenize, answer=list[list[Token]], example=text, family=TEI),
            post("/decode", DecodeBody, self.decode, answer=list[str], example=ids, family=TEI),
        ]

    async def tokenize(self, body: TokenizeBody, request: Request) -> Answer:
        """The tokens of each text, and where they lie in it."""
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        check_count(len(texts), self.inputs_max, "inputs", "texts")
        call = inference_pb2.TokenizeRequest(
            inputs=texts, skip_special_tokens=body.add_special_tokens is False, prompt_name=body.prompt_name or ""
        )
        with RenamedFields({}, is_list=texts is body.inputs):
            answer = await self.models.find(body.model).client.tokenize(call, request.options())
        return Answer(LongList(answer.results, tokens_of))

    async def decode(self, body: DecodeBody, request: Request) -> Answer:
        """The text of each list of token ids."""
        rows, is_list = listed(body.ids)  # type: ignore[arg-type]  # a list that holds no text
        check_count(len(rows), self.inputs_max, "ids", "lists")
        token_ids = [
            packed(row, f"ids[{index}]" if is_list else "ids", "ids")  # type: ignore[arg-type]  # no text either
            for index, row in enumerate(rows)
        ]
        call = inference_pb2.DecodeRequest(token_ids=token_ids, keep_special_tokens=body.skip_special_tokens is False)
        with RenamedFields({"token_ids": "ids"}, is_list=is_list):
            answer = await self.models.find(body.model).client.decode(call, request.options())
        return Answer(LongList(answer.texts))


def tokens_of(message: inference_pb2.Tokens) -> LongList:
    return LongList(message.tokens, token_of)


def token_of(token: inference_pb2.Token) -> dict[str, Any]:
    start, stop = (None, None) if token.special else (token.start_byte, token.end_byte)
    return {"id": token.id, "text": token.text, "special": token.special, "start": start, "stop": stop}
