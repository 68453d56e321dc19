"""What the HTTP server passes to the app and gets back: plain values, so that the app knows nothing of sockets."""

import hashlib
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from heddle.client import CallOptions
from heddle.telemetry.logs import REQUEST_ID_CHARACTERS_MAX
from heddle.telemetry.traceparent import read_traceparent, read_tracestate

# The first of these headers that a request has is its id. Retries and hedges of Baseten's client carry the same id.
REQUEST_ID_HEADERS = ("x-request-id", "x-baseten-customer-request-id")
# Headers of an answer that carry the request's id.
REQUEST_ID_ANSWERS = ("x-request-id", "x-baseten-request-id")

# How long the caller waits; Baseten's client sends both with every request.
TIMEOUT_HEADER = "request-timeout-ms"
DEADLINE_HEADER = "request-deadline-ms"  # milliseconds since 1970

# Called with the bytes that a body grew by when it was decompressed, or with those of an answer as it is made. Raises
# HeddleError if there is no room for them.
Reserve = Callable[[int], None]


def reserve_nothing(size: int) -> None:
    """A Reserve without a limit."""


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
    read: Callable[[], Awaitable[bytes]]  # the whole body; called once at most
    body: bytes = b""  # once it has been read
    body_bytes: int = 0  # as it was sent
    parameter: str = ""  # the part of the path that stands for {name} in the route
    peer: str = ""  # address of the caller
    caller: str = ""  # the API key's part of the flow; "" without keys
    key_name: str = ""  # name of the API key, for the log
    user: str = ""  # the caller's name for its user
    priority: int = 0  # smaller is served first
    model: str = ""  # the caller's name for the model
    tokens: int = 0  # what answering it has cost, as are the next two
    characters: int = 0
    truncated_inputs: int = 0
    id: str = field(init=False)  # the caller's, or a new one
    arrived: float = field(init=False)  # time.monotonic() seconds
    traceparent: str = field(init=False)  # the caller's, or that of the request's span
    tracestate: str = field(init=False)

    def __post_init__(self) -> None:
        self.id = read_request_id(self.headers) or new_request_id()
        self.arrived = time.monotonic()
        stated = self.headers.get("traceparent")
        self.traceparent = read_traceparent(stated) if stated else ""
        self.tracestate = read_tracestate(self.headers.get("tracestate")) if self.traceparent else ""

    def options(self) -> CallOptions:
        """Options for all calls to tokenizer pods on behalf of the request, which share its deadline and its flow."""
        return CallOptions(
            timeout_s=max(0.0, self.deadline - time.monotonic()),
            priority=self.priority,
            flow=self.flow,
            request_id=self.id,
            traceparent=self.traceparent,
            tracestate=self.tracestate,
        )

    @property
    def flow(self) -> str:
        """See http_gateway.callers."""
        user = hash_user(self.user) if self.user else ""
        if self.caller:
            return f"{self.caller}/{user}/{self.id}"
        if user:
            return f"user:{user}/{self.id}"
        return f"peer:{self.peer}/{self.id}" if self.peer else self.id


def read_request_id(headers: Headers) -> str | None:
    for name in REQUEST_ID_HEADERS:
        given = headers.get(name)
        # Metadata of gRPC is printable ASCII too.
        if given and len(given) <= REQUEST_ID_CHARACTERS_MAX and given.isascii() and given.isprintable():
            return given
    return None


def new_request_id() -> str:
    """Unique, but not secret: randomness from the kernel would cost a system call."""
    return f"{random.getrandbits(64):016x}"


def hash_user(user: str) -> str:
    """64 bits of SHA-256: enough to tell users apart."""
    return hashlib.sha256(user.encode(errors="surrogatepass")).hexdigest()[:16]


def read_deadline(headers: Headers, timeout_s: float) -> float:
    """time.monotonic() seconds. Callers can shorten `timeout_s`, but not lengthen it."""
    left_s = timeout_s
    if timeout := headers.get(TIMEOUT_HEADER):
        left_s = min(left_s, parse_milliseconds(timeout) / 1000)
    if deadline := headers.get(DEADLINE_HEADER):
        left_s = min(left_s, parse_milliseconds(deadline) / 1000 - time.time())
    return time.monotonic() + max(0.0, left_s)


def parse_milliseconds(header: str) -> float:
    """Infinite if it is not a number."""
    text = header.strip()
    return float(text) if text.isascii() and text.replace(".", "", 1).isdigit() else math.inf


class LazyListSource(Protocol):
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


class LazyList:
    """A list of an answer that may be long: `make(thing)` for each thing of `source`, or the things themselves. Items
    are made as they are written, so that they never exist all at once and nobody waits for all of them. They may
    contain such lists themselves."""

    __slots__ = ("_make", "_source")

    def __init__(self, source: LazyListSource, make: Callable[[Any], Any] | None = None) -> None:
        self._source = source
        self._make = make

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Any]:
        return map(self._make, self._source) if self._make else iter(self._source)


@dataclass(slots=True)
class Answer:
    """What a handler returns: JSON's types, numpy arrays and LazyLists, in the format that the caller prefers."""

    value: Any
    headers: tuple[tuple[str, str], ...] = ()


# Long bodies are in parts, so that no other request waits while they are copied.
ResponseBody = bytes | list[bytes]


def body_size(body: ResponseBody) -> int:
    return len(body) if isinstance(body, bytes) else sum(map(len, body))


def release_nothing() -> None:
    """For a response whose bytes are not counted."""


@dataclass(slots=True)
class Response:
    body: ResponseBody
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    release: Callable[[], None] = release_nothing  # called once it has been sent, or never will be
