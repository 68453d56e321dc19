"""Routes: what a method and a path answer, and how the router finds it.

post("/similarity", SimilarityBody, self.similarity, answer=list[float], family=TEI, example={...})

makes a route from a typed handler. Its types say how the body is decoded, and what /openapi.json shows.
"""

import inspect
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from http_gateway.errors import Failure
from http_gateway.web.json_body import decode_json
from http_gateway.web.message import Answer, Request, Response
from http_gateway.web.supported_values import check_supported

# Path of the route that answers requests which no other route answers.
UNMATCHED = "unmatched"

Body = TypeVar("Body")
Handler = Callable[[Request], Awaitable[Answer | Response]]


@dataclass(frozen=True, slots=True)
class Family:
    """What one family of clients expects of an error."""

    name: str
    error: type[msgspec.Struct]  # the type of the body, for /openapi.json
    to_error: Callable[[Failure], msgspec.Struct]
    over_limit_status: int  # for input over a limit; GatewaySettings.over_limit_status replaces it

    def body(self, failure: Failure) -> bytes:
        """Always JSON, whatever the caller accepts: people read errors without a decoder."""
        return msgspec.json.encode(self.to_error(failure))


@dataclass(frozen=True, slots=True)
class Description:
    """The types of the body and the answer, from which msgspec makes JSON schemas."""

    summary: str
    body: Any  # None = no body; a tuple of types = any of them; see `listed_in`
    answer: Any
    example: Any = None  # of the body
    headers: Mapping[str, str] = field(default_factory=dict)  # of the answer: names and what they mean
    content_type: str = "application/json"  # which stands for MessagePack too
    listed_in: str = ""  # the field of the request that holds a list of such bodies; "" if the request is the body


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str  # may contain one {name}: what stands there, slashes included, is the request's parameter
    handler: Handler
    family: Family
    is_open: bool = False  # answered without a key and without limits, as probes must be
    described: Description | None = None  # in /openapi.json


@dataclass(frozen=True, slots=True)
class JsonHandler(Generic[Body]):
    """Decodes a body and handles it. Callers may also decode first and handle later."""

    decoder: msgspec.json.Decoder[Body]
    handle: Callable[[Body, Request], Awaitable[Answer]]

    def decode(self, content: bytes) -> Body:
        """Raises INVALID_INPUT."""
        body = decode_json(content, self.decoder)
        check_supported(body)
        return body

    def __call__(self, request: Request) -> Awaitable[Answer]:
        """Raises INVALID_INPUT at once."""
        body = self.decode(request.body)
        request.model = getattr(body, "model", None) or ""
        request.user = request.user or getattr(body, "user", None) or ""
        return self.handle(body, request)


def post(
    path: str,
    body: type[Body],
    handle: Callable[[Body, Request], Awaitable[Answer]],
    *,
    answer: Any,
    example: Any,
    family: Family,
    headers: Mapping[str, str] | None = None,
) -> Route:
    """The first line of the handler's docstring is the summary of the route; `headers` are those of its answer."""
    description = Description(summary_of(handle), body, answer, example, headers or {})
    return Route("POST", path, JsonHandler(msgspec.json.Decoder(body), handle), family, described=description)


def get(
    path: str,
    handle: Callable[[Request], Awaitable[Answer]],
    *,
    answer: Any,
    family: Family,
    is_open: bool = False,
) -> Route:
    return Route("GET", path, handle, family, is_open, Description(summary_of(handle), None, answer))


def summary_of(handle: Callable[..., Any]) -> str:
    return (inspect.getdoc(handle) or "").partition("\n")[0]


class Router:
    """Finds exact paths first, then paths with a {name}, longest beginning first. Extra slashes at either end of a path
    are ignored. HEAD finds the route of GET; the server leaves the body out."""

    def __init__(self, routes: Iterable[Route], family: Family, resolve_alias: Callable[[str], str]) -> None:
        """`family` shapes the 404 of an unknown path. `resolve_alias` gets a path that is no route, without a slash at
        its end, and returns the path that it stands for."""
        self._family = family
        self._resolve_alias = resolve_alias
        by_path: dict[str, dict[str, Route]] = defaultdict(dict)
        for route in routes:
            by_path[route.path][route.method] = route
        self._exact = {path: methods for path, methods in by_path.items() if "{" not in path}
        self._open = [(*split_around_name(path), methods) for path, methods in by_path.items() if "{" in path]
        self._open.sort(key=lambda item: -len(item[0]))

    def find(self, request: Request) -> Route:
        """Always returns a route. An unknown path gets one that answers 404."""
        path = request.path
        methods = self._exact.get(path)
        if not methods:
            path = normalize_slashes(self._resolve_alias(normalize_slashes(path)))
            methods = self._exact.get(path) or self._find_open(request, path)
        if not methods:
            return Route(request.method, UNMATCHED, not_found, self._family, is_open=True)
        method = "GET" if request.method == "HEAD" else request.method
        return methods.get(method) or wrong_method(path, methods)

    def _find_open(self, request: Request, path: str) -> dict[str, Route] | None:
        for beginning, ending, methods in self._open:
            if path.startswith(beginning) and path.endswith(ending) and len(path) > len(beginning) + len(ending):
                request.parameter = path[len(beginning) : len(path) - len(ending)]
                return methods
        return None


def split_around_name(path: str) -> tuple[str, str]:
    """The parts of a path before and after its {name}."""
    beginning, _, rest = path.partition("{")
    return beginning, rest.partition("}")[2]


def normalize_slashes(path: str) -> str:
    """One slash at the beginning, none at the end. A base URL with a trailing slash yields paths with two."""
    return f"/{path.strip('/')}"


async def not_found(request: Request) -> Response:
    raise Failure(404, "not_found", f"there is no {request.path} here")


def wrong_method(path: str, methods: Mapping[str, Route]) -> Route:
    async def refuse_method(request: Request) -> Response:
        allowed = ", ".join(methods)
        message = f"{path} answers {allowed}, not {request.method}"
        raise Failure(405, "method_not_allowed", message, headers=[("allow", allowed)])

    (family, *_) = (route.family for route in methods.values())
    return Route("", UNMATCHED, refuse_method, family, is_open=True)
