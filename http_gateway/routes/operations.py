"""What operators and their probes ask: GET /live (does the process live), /health, /ping, / and /ready (would it answer
just now), and /metrics."""

import prometheus_client

from http_gateway.families import TEI
from http_gateway.message import Request, Response
from http_gateway.routing import Route
from http_gateway.served_models import ServedModels

# As TEI has it; Baseten probes /health, SageMaker /ping.
READY_PATHS = ("/health", "/ping", "/", "/ready")


class Operations:
    def __init__(self, models: ServedModels) -> None:
        self._models = models

    def routes(self) -> list[Route]:
        return [
            *(Route("GET", path, self.ready, TEI, is_open=True) for path in READY_PATHS),
            Route("GET", "/live", self.live, TEI, is_open=True),
            Route("GET", "/metrics", self.metrics, TEI, is_open=True),
        ]

    async def live(self, _: Request) -> Response:
        return Response(b'{"status":"alive"}')

    async def ready(self, _: Request) -> Response:
        self._models.check_ready()
        return Response(b'{"status":"ready"}')

    async def metrics(self, _: Request) -> Response:
        return Response(prometheus_client.generate_latest(), content_type=prometheus_client.CONTENT_TYPE_LATEST)
