"""POST /pooling of vLLM: vectors or scores, for texts or for their tokens.

https://docs.vllm.ai/en/latest/models/pooling_models/
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from heddle import tensors
from heddle.activations import softmax
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tensors import Floats
from heddle.v1 import inference_pb2, item_pb2, model_pb2
from http_gateway.api.answers import Usage, answer_with_costs, post_with_costs
from http_gateway.api.families import OPENAI
from http_gateway.api.openai_embeddings import EmbeddingsBody, OpenAIEmbeddings
from http_gateway.api.request_fields import Dimensions, InputList, Inputs, add_inputs, check_count, list_inputs
from http_gateway.api.served_models import ModelRoutes
from http_gateway.api.tei_predict import call_predict, score_table
from http_gateway.api.tei_predict_tokens import call_predict_tokens
from http_gateway.api.vector_format import encode_base64
from http_gateway.api.vllm import VLLMBody, vllm_value
from http_gateway.errors import RenamedFields
from http_gateway.web.message import Answer, LazyList, Request
from http_gateway.web.routing import Route

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


class PoolingAnswer(msgspec.Struct):
    id: str
    object: Literal["list"]
    created: int  # seconds since 1970
    model: str
    data: list[Any]  # {index, object: "pooling", data: floats, rows of floats, or base64 of float32, row by row}
    usage: Usage


EXAMPLE = {"input": ["What is deep learning?"], "task": "embed"}


class PoolingResult(NamedTuple):
    array: Callable[[int], Floats]  # from an input's index to its [dimension] or [tokens, dimension]
    usage: item_pb2.Usage
    timings: item_pb2.Timings


@dataclass(frozen=True, slots=True)
class VLLMPooling(ModelRoutes):
    embeddings: OpenAIEmbeddings

    def routes(self) -> list[Route]:
        return [
            post_with_costs("/pooling", PoolingBody, self.pool, answer=PoolingAnswer, example=EXAMPLE, family=OPENAI)
        ]

    async def pool(self, body: PoolingBody, request: Request) -> Answer:
        """An array for each input: its vector or scores, or those of each of its tokens."""
        served = self.models.find(body.model)
        task = body.task or TASK_OF_KIND.get((await served.client.get_model(request.options())).kind, "embed")
        if body.dimensions and task != "embed":
            message = f"dimensions is for the task embed only, and the task is {task}: leave it out"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="dimensions")
        inputs, is_list = list_inputs(body.input)
        check_count(len(inputs), self.inputs_max, "input", "texts")
        compute = {
            "embed": self._embed,
            "token_embed": self._embed_tokens,
            "classify": self._classify,
            "token_classify": self._classify_tokens,
        }[task]
        with RenamedFields({"inputs": "input"}, is_list=is_list):
            result = await compute(body, inputs, request)

        def pooled(index: int) -> dict[str, Any]:
            array = result.array(index)
            data: Any = array if array.ndim == 1 else LazyList(array)
            if body.encoding_format == "base64":
                data = encode_base64(memoryview(array.tobytes()))
            return {"index": index, "object": "pooling", "data": data}

        value = vllm_value(request, served.name, LazyList(range(len(inputs)), pooled), result.usage)
        return answer_with_costs(value, request, result)

    async def _embed(self, body: PoolingBody, inputs: InputList, request: Request) -> PoolingResult:
        texts: Any = body.input  # a list of fewer types than EmbeddingsBody accepts
        embeddings_body = EmbeddingsBody(
            **body.common_fields(), input=texts, dimensions=body.dimensions, use_activation=not body.is_raw
        )
        response = await self.embeddings.call_embed(embeddings_body, request)
        vectors = tensors.from_proto(response.embeddings)
        return PoolingResult(vectors.__getitem__, response.usage, response.timings)

    async def _embed_tokens(self, body: PoolingBody, inputs: InputList, request: Request) -> PoolingResult:
        """Normalised vectors, unless the request asks for raw ones."""
        served = self.models.find(body.model)
        if body.is_raw and (await served.client.get_model(request.options())).kind != model_pb2.MODEL_KIND_EMBEDDER:
            message = "use_activation must be true or absent: the model normalises its token vectors"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="use_activation")
        call = inference_pb2.EmbedTokensRequest()
        body.set_truncation(call)
        add_inputs(call.inputs, inputs, "input")
        response = await served.client.embed_tokens(call, request.options())

        def array(index: int) -> Floats:
            table = tensors.from_proto(response.embeddings[index])
            return table if body.is_raw else normalize_rows(table)

        return PoolingResult(array, response.usage, response.timings)

    async def _classify(self, body: PoolingBody, inputs: InputList, request: Request) -> PoolingResult:
        texts = [inference_pb2.TextOrPair(text=text) for text in check_texts(inputs)]
        response = await call_predict(self.models, body, texts, request, raw_scores=body.is_raw)
        table = score_table(response, len(inputs))
        return PoolingResult(table.__getitem__, response.usage, response.timings)

    async def _classify_tokens(self, body: PoolingBody, inputs: InputList, request: Request) -> PoolingResult:
        """[tokens, labels] for each input, special tokens included, in the order of the model's labels."""
        texts = check_texts(inputs)
        response = await call_predict_tokens(self.models, body, texts, request, "none", raw_scores=True)
        model = await self.models.find(body.model).client.get_model(request.options())
        labels = list(model.labels)

        def array(index: int) -> Floats:
            tokens = response.results[index].entities
            logits = np.array([[token.scores[label] for label in labels] for token in tokens], np.float32)
            return logits if body.is_raw else softmax(logits)

        return PoolingResult(array, response.usage, response.timings)


def check_texts(inputs: InputList) -> list[str]:
    """Raises INVALID_INPUT for token ids."""
    texts = [item for item in inputs if isinstance(item, str)]
    if len(texts) < len(inputs):
        raise HeddleError(ErrorKind.INVALID_INPUT, "input holds token ids: this task takes texts only", field="input")
    return texts


def normalize_rows(table: Floats) -> Floats:
    lengths = np.linalg.norm(table, axis=-1, keepdims=True)
    rows: Floats = table / np.maximum(lengths, 1e-12)
    return rows
