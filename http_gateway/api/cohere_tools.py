"""POST /v1/tokenize, /v1/detokenize and /v1/check-api-key of Cohere: https://docs.cohere.com/reference"""

from typing import Any

import msgspec

from heddle.v1 import inference_pb2
from http_gateway.api.cohere_meta import meta
from http_gateway.api.families import COHERE
from http_gateway.api.inputs import packed
from http_gateway.api.model_routes import ModelRoutes
from http_gateway.api.schemas import TokenId
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LongList, Request
from http_gateway.web.routing import Description, Route, post, summary_of


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


class CohereTools(ModelRoutes):
    def routes(self) -> list[Route]:
        text, tokens = {"text": "What is deep learning?"}, {"tokens": [7592, 2088]}
        check = Description(summary_of(self.check_api_key), None, CheckApiKeyAnswer)
        return [
            post(
                *("/v1/tokenize", CohereTokenizeBody, self.tokenize),
                answer=CohereTokenizeAnswer,
                example=text,
                family=COHERE,
            ),
            post(
                *("/v1/detokenize", CohereDetokenizeBody, self.detokenize),
                answer=CohereDetokenizeAnswer,
                example=tokens,
                family=COHERE,
            ),
            Route("POST", "/v1/check-api-key", self.check_api_key, COHERE, described=check),
        ]

    async def tokenize(self, body: CohereTokenizeBody, request: Request) -> Answer:
        """The tokens of a text, without special tokens."""
        call = inference_pb2.TokenizeRequest(inputs=[body.text], skip_special_tokens=True)
        with RenamedFields({"inputs": "text"}, place_of=lambda _: "text"):
            answer = await self.models.find(body.model).client.tokenize(call, request.options())
        tokens = answer.results[0].tokens
        ids, strings = LongList(tokens, lambda token: token.id), LongList(tokens, lambda token: token.text)
        return Answer({"tokens": ids, "token_strings": strings, "meta": meta("1")})

    async def detokenize(self, body: CohereDetokenizeBody, request: Request) -> Answer:
        """The text of token ids, without special tokens."""
        call = inference_pb2.DecodeRequest(token_ids=[packed(body.tokens, "tokens", "tokens")])
        with RenamedFields({"token_ids": "tokens"}, place_of=lambda _: "tokens"):
            answer = await self.models.find(body.model).client.decode(call, request.options())
        return Answer({"text": answer.texts[0], "meta": meta("1")})

    async def check_api_key(self, _: Request) -> Answer:
        """Answers that the key is valid; an invalid key gets a 401, as on every route."""
        return Answer({"valid": True})
