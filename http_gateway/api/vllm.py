"""vLLM's API for pooling models: the fields and the answer that its routes share, and POST /classify, which Infinity
has too.

/classify takes {model, input}. In `data`, vLLM's answer has an object for each text, Infinity's a list of labels for
each text. A body with `raw_scores` gets Infinity's shape, because only Infinity has that field and its client always
sends it. Any other body gets vLLM's.
https://docs.vllm.ai/en/latest/models/pooling_models/ and https://michaelfeil.eu/infinity/latest/swagger_ui/
"""

import time
from typing import Annotated, Any, Literal

import msgspec

from heddle.v1 import inference_pb2, item_pb2
from http_gateway.api.answers import Usage, answer_with_costs, post_with_costs, rank_rows, usage_value
from http_gateway.api.families import OPENAI
from http_gateway.api.request_fields import CommonFields, Texts, check_count, list_texts, merge_aliases
from http_gateway.api.served_models import ModelRoutes
from http_gateway.api.tei_predict import Prediction, call_predict, ranked_labels, score_table
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LazyList, Request
from http_gateway.web.routing import Route
from http_gateway.web.supported_values import only


class VLLMBody(CommonFields, kw_only=True):
    """vLLM's fields that change the answer. Other fields are ignored."""

    user: str | None = None  # fair-share key; see http_gateway.callers
    use_activation: bool | None = None  # true when absent
    # Names that use_activation had in earlier versions of vLLM; the last two for classification and for embedding.
    activation: bool | None = None
    softmax: bool | None = None
    normalize: bool | None = None
    padding: Literal["do_not_pad"] | None = None
    add_special_tokens: Annotated[
        bool | None, only(True, instead="texts get the special tokens that the model was trained with")
    ] = None
    mm_processor_kwargs: Annotated[dict[str, Any] | None, only({}, instead="only texts are supported")] = None

    @property
    def is_raw(self) -> bool:
        """Whether the request asks for results without the final softmax, sigmoid or normalisation."""
        return merge_aliases(self.activation_aliases()) is False

    def activation_aliases(self) -> dict[str, bool | None]:
        """The fields that turn this final step on or off."""
        return {name: getattr(self, name) for name in ("use_activation", "activation", "softmax", "normalize")}


class ClassifyBody(VLLMBody, kw_only=True):
    input: Texts
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


class VLLMClassify(ModelRoutes):
    def routes(self) -> list[Route]:
        answer = ClassifyAnswer
        return [
            post_with_costs("/classify", ClassifyBody, self.classify, answer=answer, example=EXAMPLE, family=OPENAI)
        ]

    async def classify(self, body: ClassifyBody, request: Request) -> Answer:
        """The labels of each text with their scores, for vLLM's and Infinity's clients."""
        texts = list_texts(body.input)
        check_count(len(texts), self.inputs_max, "input", "texts")
        inputs = [inference_pb2.TextOrPair(text=text) for text in texts]
        with RenamedFields({"inputs": "input"}, is_list=texts is body.input):
            response = await call_predict(self.models, body, inputs, request, raw_scores=body.is_raw)
        labels = list(response.labels)
        table = score_table(response, len(texts))
        rank_row = rank_rows(response.ranking, table)
        is_infinity = body.raw_scores is not None

        def classes(index: int) -> dict[str, Any]:
            best = labels[rank_row(index)[0]]
            return {"index": index, "label": best, "probs": table[index], "num_classes": len(labels)}

        data = LazyList(range(len(texts)), ranked_labels(response, table) if is_infinity else classes)
        kind = "classify" if is_infinity else "list"
        value = vllm_value(request, self.models.find(body.model).name, data, response.usage, kind)
        return answer_with_costs(value, request, response)


def vllm_value(request: Request, model: str, data: Any, usage: item_pb2.Usage, kind: str = "list") -> dict[str, Any]:
    return {
        "id": request.id,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "data": data,
        "usage": usage_value(usage),
    }
