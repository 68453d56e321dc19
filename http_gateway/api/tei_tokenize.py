"""POST /tokenize and /decode of TEI: texts to tokens and back. Needs no engine."""

from typing import Annotated, Any

import msgspec

from heddle.v1 import inference_pb2
from http_gateway.api.families import TEI
from http_gateway.api.request_fields import NonEmpty, TokenId, check_count, list_inputs, list_texts, pack_token_ids
from http_gateway.api.served_models import ModelRoutes
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LazyList, Request
from http_gateway.web.routing import Route, post


class TokenizeBody(msgspec.Struct):
    inputs: str | Annotated[list[str], NonEmpty]
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
    ids: Annotated[list[TokenId | list[TokenId]], NonEmpty]
    skip_special_tokens: bool | None = None  # true when absent
    model: str | None = None


class TEITokenize(ModelRoutes):
    def routes(self) -> list[Route]:
        text, ids = {"inputs": "What is deep learning?"}, {"ids": [101, 7592, 102]}
        return [
            post("/tokenize", TokenizeBody, self.tokenize, answer=list[list[Token]], example=text, family=TEI),
            post("/decode", DecodeBody, self.decode, answer=list[str], example=ids, family=TEI),
        ]

    async def tokenize(self, body: TokenizeBody, request: Request) -> Answer:
        """The tokens of each text, and where they are in it."""
        texts = list_texts(body.inputs)
        check_count(len(texts), self.inputs_max, "inputs", "texts")
        call = inference_pb2.TokenizeRequest(
            inputs=texts, skip_special_tokens=body.add_special_tokens is False, prompt_name=body.prompt_name or ""
        )
        with RenamedFields({}, is_list=texts is body.inputs):
            response = await self.models.find(body.model).client.tokenize(call, request.options())
        return Answer(LazyList(response.results, lambda result: LazyList(result.tokens, token_value)))

    async def decode(self, body: DecodeBody, request: Request) -> Answer:
        """The text of each list of token ids."""
        rows, is_list = list_inputs(body.ids)  # type: ignore[arg-type]  # a list that holds no text
        check_count(len(rows), self.inputs_max, "ids", "lists")
        token_ids = [
            pack_token_ids(row, f"ids[{index}]" if is_list else "ids", "ids")  # type: ignore[arg-type]  # no text either
            for index, row in enumerate(rows)
        ]
        call = inference_pb2.DecodeRequest(token_ids=token_ids, keep_special_tokens=body.skip_special_tokens is False)
        with RenamedFields({"token_ids": "ids"}, is_list=is_list):
            response = await self.models.find(body.model).client.decode(call, request.options())
        return Answer(LazyList(response.texts))


def token_value(token: inference_pb2.Token) -> dict[str, Any]:
    start, stop = (None, None) if token.special else (token.start_byte, token.end_byte)
    return {"id": token.id, "text": token.text, "special": token.special, "start": start, "stop": stop}
