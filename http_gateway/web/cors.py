"""CORS: lets pages of other origins call the gateway from a browser. https://fetch.spec.whatwg.org/#http-cors-protocol

If the settings name origins, `http_gateway.__main__` puts a `Cors` between the server and the app. It answers
preflights before the key check, because browsers send them without a key. It adds its headers to errors too, because a
browser hides an answer without them from the page.
"""

import re
from collections.abc import Awaitable, Callable, Sequence

from http_gateway.errors import Failure
from http_gateway.web.message import REQUEST_ID_ANSWERS, Request, Response
from http_gateway.web.routing import Family

ANY = "*"
METHODS = "GET, HEAD, POST"
PREFLIGHT_SECONDS = "7200"  # how long browsers may remember the answer; Chromium allows no more

# Browsers send an origin in lower case, without a path or trailing slash. Extensions and apps have their own schemes.
ORIGIN = re.compile(r"[a-z][a-z0-9+.\-]*://(?:[a-z0-9._\-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
DEFAULT_PORT = re.compile(r"http://.*:80|https://.*:443")

Answer = Callable[[Request], Awaitable[Response]]


class Cors:
    def __init__(self, origins: Sequence[str], answer: Answer, family: Family) -> None:
        """`answer` is the app's; `family` shapes the error of a refused preflight."""
        self._origins = frozenset(origins)
        self._answer = answer
        self._family = family

    async def answer(self, request: Request) -> Response:
        origin = request.headers.get("origin")
        if request.method == "OPTIONS" and origin and "access-control-request-method" in request.headers:
            return self._preflight(request, origin)
        response = await self._answer(request)
        allowed = self._headers(origin)
        if allowed:
            names = dict.fromkeys((*REQUEST_ID_ANSWERS, *(name for name, _ in response.headers)))
            allowed = (*allowed, ("access-control-expose-headers", ", ".join(names)))
        response.headers = (*response.headers, *allowed, ("vary", "origin"))
        return response

    def _preflight(self, request: Request, origin: str) -> Response:
        if not (allowed := self._headers(origin)):
            message = f"the origin {origin} may not call this server: it is not in cors_origins"
            failure = Failure(403, "origin_not_allowed", message)
            return Response(self._family.body(failure), failure.status, headers=(("vary", "origin"),))
        wanted = request.headers.get("access-control-request-headers")
        headers = [
            *allowed,
            ("access-control-allow-methods", METHODS),
            ("access-control-max-age", PREFLIGHT_SECONDS),
            ("vary", "origin, access-control-request-headers"),
        ]
        if wanted:
            headers.append(("access-control-allow-headers", wanted))
        return Response(b"", 204, headers=tuple(headers))

    def _headers(self, origin: str | None) -> tuple[tuple[str, str], ...]:
        """The headers that let a page of this origin read the answer; none for an origin that is not allowed."""
        if ANY in self._origins:
            return (("access-control-allow-origin", ANY),)
        return (("access-control-allow-origin", origin),) if origin in self._origins and origin else ()


def check_origins(origins: Sequence[str]) -> None:
    """Raises ValueError for an origin that no browser would send. Called by the settings."""
    for origin in origins:
        if origin != ANY and (not ORIGIN.fullmatch(origin) or DEFAULT_PORT.fullmatch(origin)):
            message = f"cors_origins: {origin!r} is not an origin as browsers send it, such as https://app.example.com"
            raise ValueError(f"{message} (lower case, no path, no trailing slash, no default port) or *")
