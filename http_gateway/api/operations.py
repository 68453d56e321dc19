"""Routes for operators and probes: GET /live (is the process alive), /health, /ping, / and /ready (can it answer
requests now), /version, and /metrics."""

from importlib.metadata import version
from typing import Literal

import msgspec
import prometheus_client

from http_gateway.api.families import TEI
from http_gateway.api.served_models import ServedModels
from http_gateway.web.message import Answer, Request, Response
from http_gateway.web.routing import Description, Route, get

# TEI has them all but /ready. Baseten probes /health, SageMaker /ping.
READY_PATHS = ("/health", "/ping", "/", "/ready")
# vLLM's and Ollama's.
VERSION_PATHS = ("/version", "/api/version")


METRICS = Description("What Prometheus reads.", None, str, content_type="text/plain")


class Version(msgspec.Struct):
    version: str


class Status(msgspec.Struct):
    status: Literal["alive", "ready"]


class Operations:
    def __init__(self, models: ServedModels) -> None:
        self._models = models

    def routes(self) -> list[Route]:
        return [
            *(get(path, self.ready, answer=Status, family=TEI, is_open=True) for path in READY_PATHS),
            get("/live", self.live, answer=Status, family=TEI, is_open=True),
            *(get(path, self.version, answer=Version, is_open=True) for path in VERSION_PATHS),
            Route("GET", "/metrics", self.metrics, TEI, is_open=True, described=METRICS),
        ]

    async def live(self, _: Request) -> Answer:
        """Whether the process is alive."""
        return Answer({"status": "alive"})

    async def ready(self, _: Request) -> Answer:
        """Whether requests can be answered now."""
        self._models.check_ready()
        return Answer({"status": "ready"})

    async def version(self, _: Request) -> Answer:
        """The version of the server."""
        return Answer({"version": version("heddle")})

    async def metrics(self, _: Request) -> Response:
        return Response(prometheus_client.generate_latest(), content_type=prometheus_client.CONTENT_TYPE_LATEST)
