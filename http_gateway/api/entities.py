"""POST /predict_tokens of BEI: named entities, or a label for every token."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from heddle.v1 import inference_pb2
from http_gateway.api.cost import COST_HEADERS, cost_headers
from http_gateway.api.families import TEI
from http_gateway.api.inputs import TEIBody, check_count
from http_gateway.api.model_routes import ModelRoutes
from http_gateway.api.schemas import Some, Text
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LongList, Request
from http_gateway.web.routing import Route, post

Aggregation = Literal["none", "simple", "first", "average", "max"]


class PredictTokensBody(TEIBody, kw_only=True):
    """`inputs` is one text, a list of texts, or a list of lists of texts; all of them are taken one by one."""

    inputs: Text | Annotated[list[Text | list[Text]], Some]
    raw_scores: bool | None = None
    aggregation_strategy: Aggregation | None = None  # none when absent

    @property
    def inputs_count(self) -> int:
        return len(placed(self.inputs))


class Entity(msgspec.Struct):
    token: str
    token_id: int
    start: int
    end: int
    results: dict[str, float]


EXAMPLE = {
    "inputs": [["Apple is looking at buying U.K. startup for $1 billion"]],
    "aggregation_strategy": "max",
}


class Entities(ModelRoutes):
    def routes(self) -> list[Route]:
        return [
            post(
                *("/predict_tokens", PredictTokensBody, self.predict_tokens),
                answer=list[list[Entity]],
                example=EXAMPLE,
                family=TEI,
                headers=COST_HEADERS,
            )
        ]

    async def predict_tokens(self, body: PredictTokensBody, request: Request) -> Answer:
        """The entities of each text, or a label for each of its tokens."""
        texts = [text for text, _ in placed(body.inputs)]
        check_count(len(texts), self.inputs_max, "inputs", "texts")
        aggregation = body.aggregation_strategy or "none"
        with RenamedFields({}, place_of=lambda index: placed(body.inputs)[index][1]):
            answer = await self.call_predict_tokens(body, texts, request, aggregation, raw_scores=bool(body.raw_scores))
        rows = LongList(answer.results, entities_of)
        return Answer(rows, cost_headers(request, answer.usage, answer.timings))

    async def call_predict_tokens(
        self,
        body: TEIBody,
        texts: Sequence[str],
        request: Request,
        aggregation: Aggregation,
        *,
        raw_scores: bool = False,
        with_words: bool = False,
        with_outside: bool = False,
    ) -> inference_pb2.PredictTokensResponse:
        call = inference_pb2.PredictTokensRequest(
            inputs=texts,
            truncation=body.truncation,
            truncation_side=body.truncation_side,
            input_tokens_max=body.input_tokens_max,
            raw_scores=raw_scores,
            aggregation=f"AGGREGATION_{aggregation.upper()}",
            with_words=with_words,
            with_outside=with_outside,
        )
        return await self.models.find(body.model).client.predict_tokens(call, request.options())


def placed(inputs: str | list[str | list[str]]) -> list[tuple[str, str]]:
    """Each text, and where the caller put it; nowhere, if it is the only one there can be."""
    if isinstance(inputs, str):
        return [(inputs, "")]
    found: list[tuple[str, str]] = []
    for index, item in enumerate(inputs):
        if isinstance(item, str):
            found.append((item, f"inputs[{index}]"))
        else:
            found.extend((text, f"inputs[{index}][{inner}]") for inner, text in enumerate(item))
    return found


def entities_of(message: inference_pb2.Entities) -> LongList:
    return LongList(message.entities, entity)


def entity(message: inference_pb2.Entity) -> dict[str, Any]:
    """The best label first; equal ones by name."""
    scores = sorted(message.scores.items(), key=lambda score: (-score[1], score[0]))
    return {
        "token": message.text,
        "token_id": message.token_id,
        "start": message.start_char,
        "end": message.end_char,
        "results": {label: np.float32(score) for label, score in scores},
    }
