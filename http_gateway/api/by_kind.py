"""POST / and /invocations: the route for the model's task. POST /vertex: the same for a list of requests.

For SageMaker, Vertex AI, Hugging Face's endpoints and their clients, which know one address and no routes.
"""

import asyncio
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import model_pb2
from http_gateway.api.at_once import gather_bounded
from http_gateway.api.cost import COST_HEADERS
from http_gateway.api.families import TEI
from http_gateway.api.inputs import check_at_most
from http_gateway.api.kinds import KINDS, kind_of
from http_gateway.api.model_routes import ModelRoutes
from http_gateway.api.served_models import ServedModels
from http_gateway.api.supported import only
from http_gateway.web.json_body import decode_json
from http_gateway.web.message import Answer, LongList, Request
from http_gateway.web.routing import Description, JsonHandler, Route, summary_of

EMBEDDINGS_PATH = "/v1/embeddings"
SIMILARITY_PATH = "/similarity"
PREDICT_PATH = "/predict"
RERANK_PATH = "/rerank"

ZERO_SHOT_REFUSED = (
    "parameters.candidate_labels: zero-shot classification is not supported; send the text and each hypothesis as a "
    "pair to a model for natural language inference"
)


class AnyParameters(msgspec.Struct):
    candidate_labels: msgspec.Raw = msgspec.Raw(b"")


class AnyBody(msgspec.Struct):
    """The fields that decide which task a body is for. The task decodes the rest."""

    inputs: msgspec.Raw = msgspec.Raw(b"")
    query: msgspec.Raw = msgspec.Raw(b"")
    parameters: AnyParameters | None = None
    model: str | None = None


class VertexBody(msgspec.Struct):
    instances: list[msgspec.Raw]
    parameters: Annotated[dict[str, Any] | None, only({}, instead="send them with each instance")] = None


class VertexAnswer(msgspec.Struct):
    predictions: list[Any]


DECODER = msgspec.json.Decoder(AnyBody)


@dataclass(frozen=True, slots=True)
class Instance:
    index: int
    task: JsonHandler[Any]
    content: Any  # what the task takes
    inputs_count: int


@dataclass(frozen=True, slots=True)
class ByKind(ModelRoutes):
    tasks: Mapping[str, JsonHandler[Any]]  # by the path of their route

    def routes(self) -> list[Route]:
        text = {"inputs": "What is deep learning?"}
        paths = dict.fromkeys((*(kind.path for kind in KINDS.values()), SIMILARITY_PATH))
        bodies = tuple(self.tasks[path].decoder.type for path in paths)
        one = Description(summary_of(self.answer), bodies, Any, text, COST_HEADERS)
        several = Description(
            summary_of(self.predictions), bodies, VertexAnswer, {"instances": [text]}, listed_in="instances"
        )
        predictions = JsonHandler(msgspec.json.Decoder(VertexBody), self.predictions)
        return [
            *(Route("POST", path, self.answer, TEI, described=one) for path in ("/", "/invocations")),
            Route("POST", "/vertex", predictions, TEI, described=several),
        ]

    async def answer(self, request: Request) -> Answer:
        """The model's task: embed, embed_all, embed_sparse, rerank, predict, predict_tokens; or similarity."""
        task = await self._task_of(request.body, request)
        return await task(request)

    async def predictions(self, body: VertexBody, request: Request) -> Answer:
        """Each instance is answered as POST / answers it."""
        check_at_most(len(body.instances), self.inputs_max, "instances", "instances")
        instances = [await self._read(index, instance, request) for index, instance in enumerate(body.instances)]
        check_at_most(sum(instance.inputs_count for instance in instances), self.inputs_max, "instances")

        async def answered(instance: Instance) -> Any:
            with naming(instance.index):
                return (await instance.task.handle(instance.content, request)).value

        calls = [(instance.inputs_count, functools.partial(answered, instance)) for instance in instances]
        return Answer({"predictions": LongList(await gather_bounded(calls))})

    async def _read(self, index: int, instance: msgspec.Raw, request: Request) -> Instance:
        """Yields to other requests first: there may be many instances."""
        await asyncio.sleep(0)
        with naming(index):
            task = await self._task_of(bytes(instance), request)
            content = task.decode(bytes(instance))
            return Instance(index, task, content, content.inputs_count)

    async def _task_of(self, body: bytes, request: Request) -> JsonHandler[Any]:
        head = decode_json(body, DECODER)
        if head.parameters and bytes(head.parameters.candidate_labels):
            raise HeddleError(ErrorKind.INVALID_INPUT, ZERO_SHOT_REFUSED, field="parameters")
        model = await self.models.find(head.model).client.get_model(request.options())
        return self.tasks[path_for(head, model)]


def path_for(head: AnyBody, model: model_pb2.Model) -> str:
    """The path of the route that the body is for."""
    if model.reranks_by_cosine and bytes(head.query):
        return RERANK_PATH
    if model.kind == model_pb2.MODEL_KIND_EMBEDDER and bytes(head.inputs).startswith(b"{"):
        return SIMILARITY_PATH
    if model.kind == model_pb2.MODEL_KIND_RERANKER and bytes(head.inputs) and not bytes(head.query):
        return PREDICT_PATH  # `inputs` holds pairs of query and document
    return kind_of(model).path


@contextmanager
def naming(index: int) -> Iterator[None]:
    """Adds the index of the instance to its errors."""
    try:
        yield
    except HeddleError as error:
        message = f"instances[{index}]: {error.message}"
        raise HeddleError(error.kind, message, field="instances", retry_after_ms=error.retry_after_ms) from error


def default_path(models: ServedModels) -> str:
    """The route for the first model's task; /v1/embeddings until one of its pods has said what the model is."""
    model = models.first.client.model
    kind = KINDS.get(model.kind) if model else None
    return kind.default_path if kind else EMBEDDINGS_PATH
