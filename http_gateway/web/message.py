"""What the HTTP server hands to the app and gets back: plain values, so that the app knows nothing of sockets."""

import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from heddle.client import CallOptions
from heddle.rpc.telemetry import REQUEST_ID_CHARACTERS_MAX

# Called with the bytes of each piece of a body as it arrives, or of an answer as it is rendered. Raises HeddleError to
# refuse the rest.
Hold = Callable[[int], None]


def uncounted(size: int) -> None:
    """A Hold without a limit."""


# The first of these that a request has is its id. Retries and hedges of Baseten's client carry the same id.
REQUEST_ID_HEADERS = ("x-request-id", "x-baseten-customer-request-id")

# Headers of an answer that carry the request's id.
REQUEST_ID_ANSWERS = ("x-request-id", "x-baseten-request-id")


class Headers(Protocol):
    """Names are in lower case; values are visible ASCII, and others count as absent."""

    def get(self, key: str, default: None = None) -> str | None: ...
    def __contains__(self, key: str) -> bool: ...
    def items(self) -> Iterable[tuple[str, str]]: ...


@dataclass(slots=True)
class Request:
    method: str
    path: str  # percent-decoded, without the query
    headers: Headers
    deadline: float  # time.monotonic() seconds
    read: Callable[[Hold], Awaitable[bytes]]  # the whole body; called once at most
    body: bytes = b""  # once it has been read
    parameter: str = ""  # the part of the path that stands for {name} in the route
    peer: str = ""  # address of the caller
    caller: str = ""  # the API key's part of the flow; "" without keys
    key_name: str = ""  # name of the API key, for the log
    user: str = ""  # the caller's name for its user
    priority: int = 0  # smaller is served first
    id: str = field(init=False)  # the caller's, or a new one
    arrived: float = field(init=False)  # time.monotonic() seconds

    def __post_init__(self) -> None:
        self.id = given_id(self.headers) or new_id()
        self.arrived = time.monotonic()

    def options(self) -> CallOptions:
        """Options for all calls to tokenizer pods on behalf of the request, which share its deadline and its flow."""
        return CallOptions(
            timeout_s=max(0.0, self.deadline - time.monotonic()),
            priority=self.priority,
            flow=self.flow,
            request_id=self.id,
            traceparent=self.headers.get("traceparent") or "",
        )

    @property
    def flow(self) -> str:
        """See http_gateway.fair_share."""
        user = user_hash(self.user) if self.user else ""
        if self.caller:
            return f"{self.caller}/{user}/{self.id}"
        if user:
            return f"user:{user}/{self.id}"
        return f"peer:{self.peer}/{self.id}" if self.peer else self.id


# The body of an answer. Long ones are in parts, so that no other request waits while they are copied.
ResponseBody = bytes | list[bytes]


def bytes_of(body: ResponseBody) -> int:
    return len(body) if isinstance(body, bytes) else sum(map(len, body))


def nothing_to_release() -> None:
    """Of a response that holds nothing but its own bytes, which are few."""


@dataclass(slots=True)
class Response:
    body: ResponseBody
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    # Called once it has left, or never will.
    release: Callable[[], None] = nothing_to_release


@dataclass(slots=True)
class Answer:
    """A value that rendering writes as the caller likes it: JSON's types, numpy's arrays, and lists that
    may be long as LongList."""

    value: Any
    headers: tuple[tuple[str, str], ...] = ()


def given_id(headers: Headers) -> str | None:
    for name in REQUEST_ID_HEADERS:
        given = headers.get(name)
        if given and len(given) <= REQUEST_ID_CHARACTERS_MAX:
            return given
    return None


def new_id() -> str:
    """Unique, but not secret: randomness from the kernel would cost a system call."""
    return f"{random.getrandbits(64):016x}"


def user_hash(user: str) -> str:
    """64 bits of SHA-256: enough to distinguish users."""
    return hashlib.sha256(user.encode(errors="surrogatepass")).hexdigest()[:16]
