"""GET /v1/models and /v1/models/{id} of OpenAI: https://platform.openai.com/docs/api-reference/models

GET /models has Infinity's shape, which extends OpenAI's: https://michaelfeil.eu/infinity/latest/swagger_ui/
"""

from typing import Any, Literal

import msgspec

from heddle.v1 import model_pb2
from http_gateway.api.served_models import ServedModel, ServedModels
from http_gateway.web.message import Answer, Request
from http_gateway.web.routing import Route, get


class ModelAnswer(msgspec.Struct):
    id: str
    object: Literal["model"]
    created: int  # seconds since 1970
    owned_by: str


class ModelsAnswer(msgspec.Struct):
    object: Literal["list"]
    data: list[ModelAnswer]


class InfinityModel(ModelAnswer):
    backend: str
    capabilities: list[str]
    stats: dict[str, float]  # this gateway's unanswered calls, and their share of its requests_max


class InfinityModels(msgspec.Struct):
    object: Literal["list"]
    data: list[InfinityModel]


# Infinity's names for them.
CAPABILITIES = {
    model_pb2.MODEL_KIND_EMBEDDER: ["embed"],
    model_pb2.MODEL_KIND_RERANKER: ["rerank", "classify"],
    model_pb2.MODEL_KIND_CLASSIFIER: ["classify"],
}


class Models:
    def __init__(self, models: ServedModels, requests_max: int) -> None:
        """`requests_max` is the gateway's limit of concurrent requests."""
        self._models = models
        self._requests_max = requests_max

    def routes(self) -> list[Route]:
        return [
            get("/v1/models", self.all, answer=ModelsAnswer),
            get("/v1/models/{model}", self.one, answer=ModelAnswer),
            get("/models", self.of_infinity, answer=InfinityModels),
        ]

    async def all(self, _: Request) -> Answer:
        """The models that are served."""
        return Answer({"object": "list", "data": [self._description(name) for name in self._models.names()]})

    async def one(self, request: Request) -> Answer:
        """The model of this name."""
        return Answer(self._description(self._models.named(request.parameter).name))

    async def of_infinity(self, _: Request) -> Answer:
        """The models that are served, and how busy they are, for Infinity's clients."""
        data = [self._infinity_description(served) for served in self._models.known()]
        return Answer({"object": "list", "data": data})

    def _infinity_description(self, served: ServedModel) -> dict[str, Any]:
        model = served.client.model or model_pb2.Model()
        waiting = served.client.unanswered
        return {
            **self._description(served.name),
            "owned_by": "infinity",  # Infinity's client accepts no other value
            "backend": model.backend,
            "capabilities": [*CAPABILITIES.get(model.kind, []), *(["rerank"] if model.reranks_by_cosine else [])],
            "stats": {
                "queue_fraction": waiting / self._requests_max,
                "queue_absolute": waiting,
                "results_pending": waiting,
            },
        }

    def _description(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._models.created, "owned_by": "heddle"}
