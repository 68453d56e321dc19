"""What operators and their probes ask: GET /health (alive), /ready (would answer just now) and /metrics."""

import prometheus_client

from http_gateway.message import Request, Response
from http_gateway.routing import Route
from http_gateway.served_models import ServedModels


class Operations:
    def __init__(self, models: ServedModels) -> None:
        self._models = models

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/health", self.health, is_open=True),
            Route("GET", "/ready", self.ready, is_open=True),
            Route("GET", "/metrics", self.metrics, is_open=True),
        ]

    async def health(self, _: Request) -> Response:
        return Response(b'{"status":"ok"}')

    async def ready(self, _: Request) -> Response:
        self._models.check_ready()
        return Response(b'{"status":"ready"}')

    async def metrics(self, _: Request) -> Response:
        return Response(prometheus_client.generate_latest(), content_type=prometheus_client.CONTENT_TYPE_LATEST)
