"""POST / and /invocations run the task of the model. POST /vertex does so for each of a list of requests.

SageMaker, Vertex AI, Hugging Face's endpoints and their clients know one address and no routes.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import msgspec

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import model_pb2
from http_gateway.api.answers import COST_HEADERS
from http_gateway.api.bounded_gather import gather_bounded
from http_gateway.api.families import TEI
from http_gateway.api.request_fields import check_at_most
from http_gateway.api.served_models import KINDS, ModelRoutes, find_kind
from http_gateway.web.json_body import decode_json
from http_gateway.web.message import Answer, LazyList, Request
from http_gateway.web.routing import Description, JsonHandler, Route, summary_of
from http_gateway.web.supported_values import only

ZERO_SHOT_REFUSED = (
    "parameters.candidate_labels: zero-shot classification is not supported; send the text and each hypothesis as a "
    "pair to a model for natural language inference"
)


# Takes the bodies with `input`, if the model is an embedder.
OPENAI_PATH = "/v1/embeddings"


class AnyParameters(msgspec.Struct):
    candidate_labels: msgspec.Raw = msgspec.Raw(b"")


class BodyHead(msgspec.Struct):
    """The fields that decide which task a body is for. The task decodes the body itself."""

    inputs: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")
    query: msgspec.Raw = msgspec.Raw(b"")
    parameters: AnyParameters | None = None
    model: str | None = None


class VertexBody(msgspec.Struct):
    instances: list[msgspec.Raw]
    parameters: Annotated[dict[str, Any] | None, only({}, instead="send them with each instance")] = None


class VertexAnswer(msgspec.Struct):
    predictions: list[Any]


HEAD_DECODER = msgspec.json.Decoder(BodyHead)


@dataclass(frozen=True, slots=True)
class Instance:
    index: int
    task: JsonHandler[Any]
    body: Any  # of the task's type
    inputs_count: int


@dataclass(frozen=True, slots=True)
class ModelTask(ModelRoutes):
    tasks: Mapping[str, JsonHandler[Any]]  # by the path of their route

    def routes(self) -> list[Route]:
        text = {"inputs": "What is deep learning?"}
        paths = dict.fromkeys((*(kind.path for kind in KINDS.values()), "/similarity", OPENAI_PATH))
        bodies = tuple(self.tasks[path].decoder.type for path in paths)
        one = Description(summary_of(self.run), bodies, Any, text, COST_HEADERS)
        several = Description(
            summary_of(self.run_instances), bodies, VertexAnswer, {"instances": [text]}, listed_in="instances"
        )
        vertex = JsonHandler(msgspec.json.Decoder(VertexBody), self.run_instances)
        return [
            *(Route("POST", path, self.run, TEI, described=one) for path in ("/", "/invocations")),
            Route("POST", "/vertex", vertex, TEI, described=several),
        ]

    async def run(self, request: Request) -> Answer:
        """The model's task: embed, embed_all, embed_sparse, rerank, predict, predict_tokens; or similarity."""
        task = await self._find_task(request.body, request)
        return await task(request)

    async def run_instances(self, body: VertexBody, request: Request) -> Answer:
        """Each instance is answered as POST / answers it."""
        check_at_most(len(body.instances), self.inputs_max, "instances", "instances")
        instances = [await self._read(index, instance, request) for index, instance in enumerate(body.instances)]
        check_at_most(sum(instance.inputs_count for instance in instances), self.inputs_max, "instances")

        async def predict(instance: Instance) -> Any:
            with name_instance(instance.index):
                return (await instance.task.handle(instance.body, request)).value

        calls = [(instance.inputs_count, partial(predict, instance)) for instance in instances]
        return Answer({"predictions": LazyList(await gather_bounded(calls))})

    async def _read(self, index: int, instance: msgspec.Raw, request: Request) -> Instance:
        """Yields to other requests first: there may be many instances."""
        await asyncio.sleep(0)
        with name_instance(index):
            task = await self._find_task(bytes(instance), request)
            body = task.decode(bytes(instance))
            return Instance(index, task, body, body.inputs_count)

    async def _find_task(self, body: bytes, request: Request) -> JsonHandler[Any]:
        head = decode_json(body, HEAD_DECODER)
        if head.parameters and bytes(head.parameters.candidate_labels):
            raise HeddleError(ErrorKind.INVALID_INPUT, ZERO_SHOT_REFUSED, field="parameters")
        model = await self.models.find(head.model).client.get_model(request.options())
        return self.tasks[find_path(head, model)]


def find_path(head: BodyHead, model: model_pb2.Model) -> str:
    """The path of the route that the body is for."""
    if model.reranks_by_cosine and bytes(head.query):
        return "/rerank"
    if model.kind == model_pb2.MODEL_KIND_EMBEDDER and bytes(head.inputs).startswith(b"{"):
        return "/similarity"
    if model.kind == model_pb2.MODEL_KIND_EMBEDDER and bytes(head.input) and not bytes(head.inputs):
        return OPENAI_PATH
    if model.kind == model_pb2.MODEL_KIND_RERANKER and bytes(head.inputs) and not bytes(head.query):
        return "/predict"  # `inputs` holds pairs of query and document
    return find_kind(model).path


@contextmanager
def name_instance(index: int) -> Iterator[None]:
    """Adds the index of the instance to its errors."""
    try:
        yield
    except HeddleError as error:
        message = f"instances[{index}]: {error.message}"
        raise HeddleError(error.kind, message, field="instances", retry_after_ms=error.retry_after_ms) from error
