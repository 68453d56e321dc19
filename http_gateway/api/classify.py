"""POST /classify of vLLM and Infinity: scores texts with a sequence classifier's labels.

Both take {model, input} and answer `data`, which holds an object for each text at vLLM and a list of labels for each
text at Infinity. A body with `raw_scores` gets Infinity's shape, because only Infinity has that field and its client
always sends it. Any other body gets vLLM's.
https://docs.vllm.ai/en/latest/models/pooling_models/classify/ and https://michaelfeil.eu/infinity/latest/swagger_ui/
"""

from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from heddle.tensors import Floats
from heddle.v1 import inference_pb2
from http_gateway.api.classification import Classification, Prediction
from http_gateway.api.cost import COST_HEADERS, cost_headers
from http_gateway.api.embeddings import Usage
from http_gateway.api.inputs import check_count
from http_gateway.api.ranking import rankings_of
from http_gateway.api.schemas import Some, Text
from http_gateway.api.vllm_body import VLLMBody, answer_value
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LongList, Request
from http_gateway.web.routing import Route, post


class ClassifyBody(VLLMBody, kw_only=True):
    input: Text | Annotated[list[Text], Some]
    raw_scores: bool | None = None  # if present, true or false, the answer has Infinity's shape

    def activation_aliases(self) -> dict[str, bool | None]:
        activation = None if self.raw_scores is None else not self.raw_scores
        return {**super().activation_aliases(), "raw_scores": activation}


class Classes(msgspec.Struct):
    """vLLM's shape. `probs` is in the order of the model's labels; `label` is the one with the highest of them."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassifyAnswer(msgspec.Struct):
    id: str
    object: Literal["list", "classify"]
    created: int  # seconds since 1970
    model: str
    data: list[Classes | list[Prediction]]
    usage: Usage


EXAMPLE = {"input": ["I love it", "I hate it"]}


class Classify(Classification):
    def routes(self) -> list[Route]:
        return [
            post(
                *("/classify", ClassifyBody, self.classify),
                answer=ClassifyAnswer,
                example=EXAMPLE,
                headers=COST_HEADERS,
            )
        ]

    async def classify(self, body: ClassifyBody, request: Request) -> Answer:
        """The labels of each text with their scores, for vLLM's and Infinity's clients."""
        is_list = not isinstance(body.input, str)
        texts = [body.input] if isinstance(body.input, str) else body.input
        check_count(len(texts), self.inputs_max, "input", "texts")
        inputs = [inference_pb2.TextOrPair(text=text) for text in texts]
        with RenamedFields({"inputs": "input"}, is_list=is_list):
            answer = await self.call_predict(body, inputs, request, raw_scores=body.is_raw)
        labels = list(answer.labels)
        table = np.frombuffer(answer.scores, "<f4").reshape(len(texts), -1)
        ranking = rankings_of(answer.ranking, table)
        is_infinity = body.raw_scores is not None

        def classes(index: int) -> dict[str, Any]:
            scores: Floats = table[index]
            return {"index": index, "label": labels[ranking(index)[0]], "probs": scores, "num_classes": len(labels)}

        def predictions(index: int) -> LongList:
            scores: Floats = table[index]
            return LongList(ranking(index), lambda label: {"score": scores[label], "label": labels[label]})

        data = LongList(range(len(texts)), predictions if is_infinity else classes)
        kind = "classify" if is_infinity else "list"
        value = answer_value(request, self.models.find(body.model).name, data, answer.usage, kind)
        return Answer(value, cost_headers(request, answer.usage, answer.timings))
