"""A route from a typed handler: a struct in, a value out. What the types say is what is decoded and documented.

post("/similarity", SimilarityBody, self.similarity, answer=list[float], family=TEI, example={...})
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from http_gateway.web.json_body import decoded
from http_gateway.web.message import Answer, Request
from http_gateway.web.routing import Description, Family, Route
from http_gateway.web.supported_values import check_supported

Body = TypeVar("Body")
Handle = Callable[[Body, Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Task(Generic[Body]):
    """The decoder and the handler of a route. Callers may decode a body first and handle it later."""

    decoder: msgspec.json.Decoder[Body]
    handle: Handle[Body]

    def read(self, content: bytes) -> Body:
        """Raises INVALID_INPUT."""
        body = decoded(content, self.decoder)
        check_supported(body)
        return body

    def __call__(self, request: Request) -> Awaitable[Answer]:
        """Raises INVALID_INPUT at once."""
        body = self.read(request.body)
        request.user = request.user or getattr(body, "user", None) or ""
        return self.handle(body, request)


def post(
    path: str,
    body: type[Body],
    handle: Handle[Body],
    *,
    answer: Any,
    example: Any,
    family: Family,
    headers: Mapping[str, str] | None = None,
) -> Route:
    """The first line of the handler's docstring is the summary of the route; `headers` are those of its answer."""
    description = Description(summary_of(handle), body, answer, example, headers or {})
    return Route("POST", path, Task(msgspec.json.Decoder(body), handle), family, described=description)


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
