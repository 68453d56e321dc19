"""GET /v1/models and /v1/models/{id}, as OpenAI defines them: https://platform.openai.com/docs/api-reference/models"""

from typing import Any, Literal

import msgspec

from http_gateway.endpoint import get
from http_gateway.message import Answer, Request
from http_gateway.routing import Route
from http_gateway.served_models import ServedModels


class ModelAnswer(msgspec.Struct):
    id: str
    object: Literal["model"]
    created: int  # seconds since 1970
    owned_by: str


class ModelsAnswer(msgspec.Struct):
    object: Literal["list"]
    data: list[ModelAnswer]


class Models:
    def __init__(self, models: ServedModels) -> None:
        self._models = models

    def routes(self) -> list[Route]:
        return [
            get("/v1/models", self.all, answer=ModelsAnswer),
            get("/v1/models/{model}", self.one, answer=ModelAnswer),
        ]

    async def all(self, _: Request) -> Answer:
        """The models that are served."""
        return Answer({"object": "list", "data": [self._description(name) for name in self._models.names()]})

    async def one(self, request: Request) -> Answer:
        """The model of this name."""
        return Answer(self._description(self._models.named(request.parameter).name))

    def _description(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._models.created, "owned_by": "heddle"}
