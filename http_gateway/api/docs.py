"""What there is to ask: GET /openapi.json and /api-doc/openapi.json for programs, /docs for people."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import orjson

from http_gateway.web.message import Request, Response
from http_gateway.web.openapi import document
from http_gateway.web.routing import Route

PAGE = Path(__file__).parents[1] / "docs.html"


class Docs:
    def __init__(self, described: Sequence[Route]) -> None:
        self._described = described

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/docs", self.page, is_open=True),
            Route("GET", "/openapi.json", self.openapi, is_open=True),
            Route("GET", "/api-doc/openapi.json", self.openapi, is_open=True),
        ]

    async def page(self, _: Request) -> Response:
        return Response(self._page, content_type="text/html; charset=utf-8")

    async def openapi(self, _: Request) -> Response:
        return Response(self._document)

    @cached_property
    def _page(self) -> bytes:
        return PAGE.read_bytes()

    @cached_property
    def _document(self) -> bytes:
        return orjson.dumps(document(self._described))
