"""POST /predict of TEI and BEI: scores texts, or pairs of texts, with a sequence classifier's labels."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from heddle.activations import sigmoid, softmax
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tensors import Floats
from heddle.v1 import inference_pb2
from http_gateway.api.answers import answer_with_costs, post_with_costs, rank_rows
from http_gateway.api.families import TEI
from http_gateway.api.request_fields import CommonFields, NonEmpty, OneOrTwo, Text, check_count
from http_gateway.api.served_models import ModelRoutes, ServedModels
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LazyList, Request
from http_gateway.web.routing import Route

# Hugging Face's names for them.
ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {"none": lambda x: x, "sigmoid": sigmoid, "softmax": softmax}


class Parameters(msgspec.Struct):
    """Sent by Hugging Face's InferenceClient, which then expects the answer in the shape of a batch."""

    top_k: Annotated[int, msgspec.Meta(ge=1)] | None = None  # all labels when absent
    function_to_apply: Literal["none", "sigmoid", "softmax"] | None = None  # the model's own when absent


class PredictBody(CommonFields, kw_only=True):
    """`inputs` is a text; a flat list of one text or of a pair of texts; or a list of such lists."""

    inputs: Text | Annotated[list[Text | Annotated[list[Text], OneOrTwo]], NonEmpty]
    raw_scores: bool | None = None
    parameters: Parameters | None = None

    @property
    def inputs_count(self) -> int:
        return len(list_texts_or_pairs(self.inputs)[0])


class Prediction(msgspec.Struct):
    score: float
    label: str


# A text or pair gets a list of its labels; a batch gets a list of such lists.
PredictAnswer = list[Prediction | list[Prediction]]
EXAMPLE = {"inputs": [["I love it"], ["I hate it"]]}


class TEIPredict(ModelRoutes):
    def routes(self) -> list[Route]:
        return [
            post_with_costs("/predict", PredictBody, self.predict, answer=PredictAnswer, example=EXAMPLE, family=TEI)
        ]

    async def predict(self, body: PredictBody, request: Request) -> Answer:
        """All labels of each text or pair with their scores, the best first."""
        inputs, is_batch = list_texts_or_pairs(body.inputs)
        check_count(len(inputs), self.inputs_max, "inputs")
        parameters = body.parameters or Parameters()
        activation = parameters.function_to_apply
        if body.raw_scores and activation not in (None, "none"):
            message = (
                f"raw_scores and parameters.function_to_apply {activation} contradict each other: send one of them"
            )
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="parameters")
        with RenamedFields({}, is_list=is_batch):
            response = await call_predict(
                self.models, body, inputs, request, raw_scores=bool(body.raw_scores or activation)
            )
        table = ACTIVATIONS[activation or "none"](score_table(response, len(inputs)))
        rows = LazyList(range(len(table)), ranked_labels(response, table, parameters.top_k))
        value = rows if is_batch or body.parameters else next(iter(rows))
        return answer_with_costs(value, request, response)


async def call_predict(
    models: ServedModels,
    body: CommonFields,
    inputs: list[inference_pb2.TextOrPair],
    request: Request,
    *,
    raw_scores: bool,
) -> inference_pb2.PredictResponse:
    call = inference_pb2.PredictRequest(inputs=inputs, raw_scores=raw_scores)
    body.set_truncation(call)
    return await models.find(body.model).client.predict(call, request.options())


def score_table(response: inference_pb2.PredictResponse, rows: int) -> Floats:
    """[inputs, labels]"""
    return np.frombuffer(response.scores, "<f4").reshape(rows, -1)


def ranked_labels(
    response: inference_pb2.PredictResponse, table: Floats, top_k: int | None = None
) -> Callable[[int], LazyList]:
    """A function from the index of an input to its labels and their scores, the best first."""
    labels = list(response.labels)
    rank_row = rank_rows(response.ranking, table)

    def predictions(row: int) -> LazyList:
        scores = table[row]
        return LazyList(rank_row(row)[:top_k], lambda label: {"score": scores[label], "label": labels[label]})

    return predictions


def list_texts_or_pairs(value: str | list[str | list[str]]) -> tuple[list[inference_pb2.TextOrPair], bool]:
    """The texts and pairs, and whether there may be several. Raises INVALID_INPUT for anything else."""
    if isinstance(value, str):
        return [inference_pb2.TextOrPair(text=value)], False
    if value and all(isinstance(item, str) for item in value):
        return [parse_text_or_pair(value, "inputs")], False
    return [parse_text_or_pair(item, f"inputs[{index}]") for index, item in enumerate(value)], True


def parse_text_or_pair(item: Any, place: str) -> inference_pb2.TextOrPair:
    match item:
        case [str(text)]:
            return inference_pb2.TextOrPair(text=text)
        case [str(text), str(pair)]:
            return inference_pb2.TextOrPair(text=text, pair=pair)
    message = f"{place} must be a list of one text or a pair of texts; send several inputs as [[text], [text], ...]"
    raise HeddleError(ErrorKind.INVALID_INPUT, message, field="inputs")
