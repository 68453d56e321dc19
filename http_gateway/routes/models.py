"""GET /v1/models and /v1/models/{id}, as OpenAI defines them: https://platform.openai.com/docs/api-reference/models"""

from typing import Any

import orjson

from http_gateway.message import Request, Response
from http_gateway.routing import Route
from http_gateway.served_models import ServedModels


class Models:
    def __init__(self, models: ServedModels) -> None:
        self._models = models

    def routes(self) -> list[Route]:
        return [Route("GET", "/v1/models", self.all), Route("GET", "/v1/models/{id}", self.one)]

    async def all(self, _: Request) -> Response:
        data = [self._description(name) for name in self._models.names()]
        return Response(orjson.dumps({"object": "list", "data": data}))

    async def one(self, request: Request) -> Response:
        return Response(orjson.dumps(self._description(self._models.named(request.parameter).name)))

    def _description(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._models.created, "owned_by": "heddle"}
