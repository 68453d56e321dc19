"""Routes that call no model: GET /live (is the process alive), /health, /ping, / and /ready (can it answer requests),
/version, /metrics, and the documentation at /openapi.json, /api-doc/openapi.json and /docs."""

import asyncio
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import msgspec
import orjson

from heddle.telemetry.metrics import Metrics
from http_gateway.api.families import OPENAI, TEI
from http_gateway.api.openapi import Defaults, document
from http_gateway.api.path_aliases import first_kind
from http_gateway.api.served_models import ServedModels
from http_gateway.web.message import Answer, Request, Response
from http_gateway.web.routing import Description, Route, get

# All but /ready are TEI's. Baseten probes /health, SageMaker /ping.
READY_PATHS = ("/health", "/ping", "/", "/ready")
# vLLM's and Ollama's.
VERSION_PATHS = ("/version", "/api/version")

METRICS = Description("What Prometheus reads.", None, str, content_type="text/plain")
DOCS_PAGE = Path(__file__).parents[1] / "docs.html"


class Version(msgspec.Struct):
    version: str


class Status(msgspec.Struct):
    status: Literal["alive", "ready"]


class Operations:
    def __init__(self, models: ServedModels, metrics: Metrics) -> None:
        self._models = models
        self._metrics = metrics

    def routes(self) -> list[Route]:
        return [
            *(get(path, self.ready, answer=Status, family=TEI, is_open=True) for path in READY_PATHS),
            get("/live", self.live, answer=Status, family=TEI, is_open=True),
            *(get(path, self.version, answer=Version, family=OPENAI, is_open=True) for path in VERSION_PATHS),
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

    async def metrics(self, request: Request) -> Response:
        accept = request.headers.get("accept") or ""
        body, content_type = await asyncio.to_thread(self._metrics.expose, accept)
        return Response(body, content_type=content_type)


class Docs:
    def __init__(self, described: Sequence[Route], models: ServedModels, default_route: str) -> None:
        """If `default_route` is empty, the kind of the first model decides."""
        self._described = described
        self._models = models
        self._default_route = default_route
        self._documents: dict[Defaults, bytes] = {}  # the kind of model may change once, when a pod reports it

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/docs", self.page, OPENAI, is_open=True),
            Route("GET", "/openapi.json", self.openapi, OPENAI, is_open=True),
            Route("GET", "/api-doc/openapi.json", self.openapi, OPENAI, is_open=True),
        ]

    async def page(self, _: Request) -> Response:
        return Response(self._page, content_type="text/html; charset=utf-8")

    async def openapi(self, _: Request) -> Response:
        kind = first_kind(self._models)
        defaults = Defaults(self._default_route, kind.default_path, kind.path)
        if defaults not in self._documents:
            self._documents[defaults] = orjson.dumps(document(self._described, defaults))
        return Response(self._documents[defaults])

    @cached_property
    def _page(self) -> bytes:
        return DOCS_PAGE.read_bytes()
