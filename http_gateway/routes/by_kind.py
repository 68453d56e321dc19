"""POST / and /invocations: what the model is for, whatever that is; and /vertex, the same for a list of requests.

For SageMaker, Vertex AI, Hugging Face's endpoints and the clients made for them, which know one address and no routes.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from heddle.v1 import model_pb2
from http_gateway.endpoint import Task, post, summary_of, typed
from http_gateway.families import TEI
from http_gateway.json_body import decoded
from http_gateway.long_list import LongList
from http_gateway.message import Answer, Request
from http_gateway.routes.classification import Classification, PredictBody
from http_gateway.routes.entities import Entities, PredictTokensBody
from http_gateway.routes.inputs import check_count
from http_gateway.routes.rerank import Rerank, RerankBody
from http_gateway.routes.vectors import EmbedAllBody, EmbedBody, SimilarityBody, Vectors
from http_gateway.routing import Description, Route
from http_gateway.served_models import ServedModels

EMBEDDINGS_PATH = "/v1/embeddings"
DEFAULT_PATHS = {
    model_pb2.MODEL_KIND_SPARSE_EMBEDDER: "/embed_sparse",
    model_pb2.MODEL_KIND_RERANKER: "/predict",
    model_pb2.MODEL_KIND_CLASSIFIER: "/predict",
    model_pb2.MODEL_KIND_TOKEN_CLASSIFIER: "/predict_tokens",
}


class AnyBody(msgspec.Struct):
    """What tells the tasks apart; the rest of the body is the task's."""

    inputs: msgspec.Raw = msgspec.Raw(b"")
    model: str | None = None


class VertexBody(msgspec.Struct):
    instances: list[msgspec.Raw]


class VertexAnswer(msgspec.Struct):
    predictions: list[Any]


DECODER = msgspec.json.Decoder(AnyBody)


class ByKind:
    def __init__(
        self,
        models: ServedModels,
        vectors: Vectors,
        rerank: Rerank,
        classification: Classification,
        entities: Entities,
        *,
        inputs_max: int,
    ) -> None:
        self._models = models
        self._inputs_max = inputs_max
        self._similarity = typed(SimilarityBody, vectors.similarity)
        self._tasks: Mapping[int, Task] = {
            model_pb2.MODEL_KIND_EMBEDDER: typed(EmbedBody, vectors.embed),
            model_pb2.MODEL_KIND_SPARSE_EMBEDDER: typed(EmbedAllBody, vectors.embed_sparse),
            model_pb2.MODEL_KIND_RERANKER: typed(RerankBody, rerank.rerank),
            model_pb2.MODEL_KIND_CLASSIFIER: typed(PredictBody, classification.predict),
            model_pb2.MODEL_KIND_TOKEN_CLASSIFIER: typed(PredictTokensBody, entities.predict_tokens),
        }

    def routes(self) -> list[Route]:
        text = {"inputs": "What is deep learning?"}
        description = Description(summary_of(self.answer), dict[str, Any], Any, text)
        return [
            *(Route("POST", path, self.answer, TEI, described=description) for path in ("/", "/invocations")),
            post(
                *("/vertex", VertexBody, self.predictions),
                answer=VertexAnswer,
                example={"instances": [text]},
                family=TEI,
            ),
        ]

    async def answer(self, request: Request) -> Answer:
        """What the model is for: embed, embed_sparse, rerank, predict or predict_tokens; similarity for its inputs."""
        return await self._answer(request.body, request)

    async def predictions(self, body: VertexBody, request: Request) -> Answer:
        """Each instance is answered as POST / answers it."""
        check_count(len(body.instances), self._inputs_max, "instances", "instances")
        try:
            async with asyncio.TaskGroup() as group:
                answers = [group.create_task(self._answer(bytes(instance), request)) for instance in body.instances]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return Answer({"predictions": LongList(answers, lambda answer: answer.result().value)})

    async def _answer(self, body: bytes, request: Request) -> Answer:
        head = decoded(body, DECODER)
        model = await self._models.find(head.model).client.get_model(request.options())
        is_similarity = model.kind == model_pb2.MODEL_KIND_EMBEDDER and bytes(head.inputs).startswith(b"{")
        task = self._similarity if is_similarity else self._tasks[model.kind]
        return await task(body, request)


def default_path(models: ServedModels) -> str:
    """Of Baseten's routes, the one that the first model is for; the commonest until one of its pods has been met."""
    model = models.first.client.model
    return DEFAULT_PATHS.get(model.kind, EMBEDDINGS_PATH) if model else EMBEDDINGS_PATH
