"""POST /pooling of vLLM: vectors or scores, for texts or for their tokens.

https://docs.vllm.ai/en/latest/models/pooling_models/
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tensors import Floats
from heddle.v1 import inference_pb2, item_pb2, model_pb2
from http_gateway.api.activations import activate
from http_gateway.api.classification import Classification
from http_gateway.api.cost import COST_HEADERS, cost_headers
from http_gateway.api.embeddings import Embeddings, EmbeddingsBody, Usage
from http_gateway.api.entities import Entities
from http_gateway.api.inputs import Dimensions, Inputs, TokenIds, add_inputs, check_count, listed, shared_fields
from http_gateway.api.model_routes import ModelRoutes
from http_gateway.api.vector_format import base64_of
from http_gateway.api.vllm_body import VLLMBody, answer_value
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LongList, Request
from http_gateway.web.routing import Route, post

PoolingTask = Literal["embed", "classify", "token_embed", "token_classify"]

# The task of a request that names none.
TASK_OF_KIND: dict[int, PoolingTask] = {
    model_pb2.MODEL_KIND_MULTI_VECTOR_EMBEDDER: "token_embed",
    model_pb2.MODEL_KIND_RERANKER: "classify",
    model_pb2.MODEL_KIND_CLASSIFIER: "classify",
    model_pb2.MODEL_KIND_TOKEN_CLASSIFIER: "token_classify",
}


class PoolingBody(VLLMBody, kw_only=True):
    input: Inputs
    task: PoolingTask | None = None  # the model's own task when absent
    encoding_format: Literal["float", "base64"] | None = None
    embed_dtype: Literal["float32"] | None = None  # for base64
    endianness: Literal["native", "little"] | None = None  # for base64
    dimensions: Dimensions | None = None  # for the task embed


class Pooled(msgspec.Struct):
    index: int
    object: Literal["pooling"]
    data: list[float] | list[list[float]] | str  # a string is base64 of float32, row by row


class PoolingAnswer(msgspec.Struct):
    id: str
    object: Literal["list"]
    created: int  # seconds since 1970
    model: str
    data: list[Any]  # of Pooled
    usage: Usage


EXAMPLE = {"input": ["What is deep learning?"], "task": "embed"}


class Outcome(NamedTuple):
    inputs: int
    array: Callable[[int], Floats]  # from an input's index to its [dimension] or [tokens, dimension]
    usage: item_pb2.Usage
    timings: item_pb2.Timings


@dataclass(frozen=True, slots=True)
class Pooling(ModelRoutes):
    embeddings: Embeddings
    classification: Classification
    entities: Entities

    def routes(self) -> list[Route]:
        return [post("/pooling", PoolingBody, self.pool, answer=PoolingAnswer, example=EXAMPLE, headers=COST_HEADERS)]

    async def pool(self, body: PoolingBody, request: Request) -> Answer:
        """An array for each input: its vector or scores, or those of each of its tokens."""
        served = self.models.find(body.model)
        task = body.task or TASK_OF_KIND.get((await served.client.get_model(request.options())).kind, "embed")
        if body.dimensions and task != "embed":
            message = f"dimensions is for the task embed only, and the task is {task}: leave it out"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="dimensions")
        inputs, is_list = listed(body.input)
        check_count(len(inputs), self.inputs_max, "input", "texts")
        ask = {
            "embed": self._embed,
            "token_embed": self._embed_tokens,
            "classify": self._classify,
            "token_classify": self._classify_tokens,
        }[task]
        with RenamedFields({"inputs": "input"}, is_list=is_list):
            outcome = await ask(body, inputs, request)

        def pooled(index: int) -> dict[str, Any]:
            array = outcome.array(index)
            data = base64_of(memoryview(array.tobytes())) if body.encoding_format == "base64" else array
            return {"index": index, "object": "pooling", "data": data}

        value = answer_value(request, served.name, LongList(range(outcome.inputs), pooled), outcome.usage)
        return Answer(value, cost_headers(request, outcome.usage, outcome.timings))

    async def _embed(self, body: PoolingBody, inputs: Sequence[str | int | TokenIds], request: Request) -> Outcome:
        texts: Any = body.input  # a list of fewer kinds
        wanted = EmbeddingsBody(
            **shared_fields(body), input=texts, dimensions=body.dimensions, use_activation=not body.is_raw
        )
        answer = await self.embeddings.call_embed(wanted, request)
        return Outcome(len(inputs), tensors.from_proto(answer.embeddings).__getitem__, answer.usage, answer.timings)

    async def _embed_tokens(
        self, body: PoolingBody, inputs: Sequence[str | int | TokenIds], request: Request
    ) -> Outcome:
        """Normalised vectors, unless the request asks for raw ones."""
        served = self.models.find(body.model)
        if body.is_raw and (await served.client.get_model(request.options())).kind != model_pb2.MODEL_KIND_EMBEDDER:
            message = "use_activation must be true or absent: the model normalises its token vectors"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="use_activation")
        call = inference_pb2.EmbedTokensRequest(
            truncation=body.truncation,
            truncation_side=body.truncation_side,
            input_tokens_max=body.input_tokens_max,
        )
        add_inputs(call.inputs, inputs, "input")
        answer = await served.client.embed_tokens(call, request.options())

        def array(index: int) -> Floats:
            table = tensors.from_proto(answer.embeddings[index])
            return table if body.is_raw else normalized(table)

        return Outcome(len(inputs), array, answer.usage, answer.timings)

    async def _classify(self, body: PoolingBody, inputs: Sequence[str | int | TokenIds], request: Request) -> Outcome:
        texts = [inference_pb2.TextOrPair(text=text) for text in texts_of(inputs)]
        answer = await self.classification.call_predict(body, texts, request, raw_scores=body.is_raw)
        table = np.frombuffer(answer.scores, "<f4").reshape(len(inputs), -1)
        return Outcome(len(inputs), table.__getitem__, answer.usage, answer.timings)

    async def _classify_tokens(
        self, body: PoolingBody, inputs: Sequence[str | int | TokenIds], request: Request
    ) -> Outcome:
        """[tokens, labels] for each input, special tokens included, in the order of the model's labels."""
        answer = await self.entities.call_predict_tokens(body, texts_of(inputs), request, "none", raw_scores=True)
        model = await self.models.find(body.model).client.get_model(request.options())
        labels = list(model.labels)

        def array(index: int) -> Floats:
            tokens = answer.results[index].entities
            logits = np.array([[token.scores[label] for label in labels] for token in tokens], np.float32)
            return logits if body.is_raw else activate(logits, "softmax")

        return Outcome(len(inputs), array, answer.usage, answer.timings)


def texts_of(inputs: Sequence[str | int | TokenIds]) -> list[str]:
    """Raises INVALID_INPUT for token ids."""
    texts = [item for item in inputs if isinstance(item, str)]
    if len(texts) < len(inputs):
        raise HeddleError(ErrorKind.INVALID_INPUT, "input holds token ids: this task takes texts only", field="input")
    return texts


def normalized(table: Floats) -> Floats:
    lengths = np.linalg.norm(table, axis=-1, keepdims=True)
    rows: Floats = table / np.maximum(lengths, 1e-12)
    return rows
