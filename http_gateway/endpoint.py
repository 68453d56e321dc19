"""A route from a typed handler: a struct in, a value out. What the types say is what is decoded and documented.

post("/similarity", SimilarityBody, self.similarity, answer=list[float], family=TEI, example={...})
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from http_gateway.families import OPENAI, Family
from http_gateway.json_body import decoded
from http_gateway.message import Answer, Request
from http_gateway.routing import Description, Route

Body = TypeVar("Body")
Handle = Callable[[Body, Request], Awaitable[Answer]]
# Of a body as it was sent.
Task = Callable[[bytes, Request], Awaitable[Answer]]


def typed(body: type[Body], handle: Handle[Body]) -> Task:
    decoder = msgspec.json.Decoder(body)

    async def answered(content: bytes, request: Request) -> Answer:
        return await handle(decoded(content, decoder), request)

    return answered


def post(
    path: str, body: type[Body], handle: Handle[Body], *, answer: Any, example: Any, family: Family = OPENAI
) -> Route:
    """The first line of the handler's docstring is the summary of the route."""
    task = typed(body, handle)
    description = Description(summary_of(handle), body, answer, example)
    return Route("POST", path, lambda request: task(request.body, request), family, described=description)


def get(
    path: str,
    handle: Callable[[Request], Awaitable[Answer]],
    *,
    answer: Any,
    family: Family = OPENAI,
    is_open: bool = False,
) -> Route:
    return Route("GET", path, handle, family, is_open, Description(summary_of(handle), None, answer, None))


def summary_of(handle: Callable[..., Any]) -> str:
    return (inspect.getdoc(handle) or "").partition("\n")[0]
