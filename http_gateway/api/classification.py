"""POST /predict of TEI and BEI: scores texts, or pairs of texts, with a sequence classifier's labels."""

from typing import Annotated, Any

import msgspec
import numpy as np

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from http_gateway.api.activations import Activation, activate
from http_gateway.api.cost import COST_HEADERS, cost_headers
from http_gateway.api.families import TEI
from http_gateway.api.inputs import TEIBody, check_count
from http_gateway.api.model_routes import ModelRoutes
from http_gateway.api.ranking import rankings_of
from http_gateway.api.schemas import OneOrTwo, Some, Text
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LongList, Request
from http_gateway.web.routing import Route, post


class Parameters(msgspec.Struct):
    """Sent by Hugging Face's InferenceClient, which then expects the answer in the shape of a batch."""

    top_k: Annotated[int, msgspec.Meta(ge=1)] | None = None  # all labels when absent
    function_to_apply: Activation | None = None  # the model's own when absent


class PredictBody(TEIBody, kw_only=True):
    """`inputs` is a text; a flat list of one text or of a pair of texts; or a list of such lists."""

    inputs: Text | Annotated[list[Text | Annotated[list[Text], OneOrTwo]], Some]
    raw_scores: bool | None = None
    parameters: Parameters | None = None

    @property
    def inputs_count(self) -> int:
        return len(texts_or_pairs(self.inputs)[0])


class Prediction(msgspec.Struct):
    score: float
    label: str


# One text or pair gets its labels, a list of them gets a list of such.
PredictAnswer = list[Prediction | list[Prediction]]
EXAMPLE = {"inputs": [["I love it"], ["I hate it"]]}


class Classification(ModelRoutes):
    def routes(self) -> list[Route]:
        return [
            post(
                "/predict",
                PredictBody,
                self.predict,
                answer=PredictAnswer,
                example=EXAMPLE,
                family=TEI,
                headers=COST_HEADERS,
            )
        ]

    async def predict(self, body: PredictBody, request: Request) -> Answer:
        """All labels of each text or pair with their scores, the best first."""
        inputs, is_batch = texts_or_pairs(body.inputs)
        check_count(len(inputs), self.inputs_max, "inputs")
        activation = body.parameters.function_to_apply if body.parameters else None
        if body.raw_scores and activation not in (None, "none"):
            message = (
                f"raw_scores and parameters.function_to_apply {activation} contradict each other: send one of them"
            )
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="parameters")
        with RenamedFields({}, is_list=is_batch):
            answer = await self.call_predict(body, inputs, request, raw_scores=bool(body.raw_scores or activation))
        table = np.frombuffer(answer.scores, "<f4").reshape(len(inputs), -1)
        if activation:
            table = activate(table, activation)
        top_k = body.parameters.top_k if body.parameters else None
        labels = list(answer.labels)
        ranking = rankings_of(answer.ranking, table)

        def predictions(row: int) -> LongList:
            scores = table[row]
            return LongList(ranking(row)[:top_k], lambda index: {"score": scores[index], "label": labels[index]})

        rows = LongList(range(len(table)), predictions)
        value = rows if is_batch or body.parameters else predictions(0)
        return Answer(value, cost_headers(request, answer.usage, answer.timings))

    async def call_predict(
        self, body: TEIBody, inputs: list[inference_pb2.TextOrPair], request: Request, *, raw_scores: bool
    ) -> inference_pb2.PredictResponse:
        call = inference_pb2.PredictRequest(
            inputs=inputs,
            truncation=body.truncation,
            truncation_side=body.truncation_side,
            input_tokens_max=body.input_tokens_max,
            raw_scores=raw_scores,
        )
        return await self.models.find(body.model).client.predict(call, request.options())


def texts_or_pairs(value: str | list[str | list[str]]) -> tuple[list[inference_pb2.TextOrPair], bool]:
    """The inputs, and whether there may be several. Raises INVALID_INPUT for what is neither text nor pair."""
    if isinstance(value, str):
        return [inference_pb2.TextOrPair(text=value)], False
    if value and all(isinstance(item, str) for item in value):
        return [text_or_pair(value, "inputs")], False
    return [text_or_pair(item, f"inputs[{index}]") for index, item in enumerate(value)], True


def text_or_pair(item: Any, place: str) -> inference_pb2.TextOrPair:
    match item:
        case [str(text)]:
            return inference_pb2.TextOrPair(text=text)
        case [str(text), str(pair)]:
            return inference_pb2.TextOrPair(text=text, pair=pair)
    wanted = "one text or two that are a pair; several inputs are sent as [[text], [text], ...]"
    raise HeddleError(ErrorKind.INVALID_INPUT, f"{place} must be a list of {wanted}", field="inputs")
