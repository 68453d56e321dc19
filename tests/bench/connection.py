"""A kept-alive HTTP/1.1 connection that sends one request at a time. `load` uses it."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

LENGTH = b"content-length:"
CHUNKED = b"transfer-encoding: chunked"


class OnAnswer(Protocol):
    def __call__(self, connection: "Connection", *, is_ok: bool, body: bytes) -> None: ...


class Connection(asyncio.Protocol):
    def __init__(self, on_answer: OnAnswer, on_lost: Callable[[], None]) -> None:
        self.on_answer, self.on_lost = on_answer, on_lost
        self.received = bytearray()
        self.head_bytes = self.needed = 0
        self.index = 0  # of the body sent last
        self.since = 0.0  # when that request was due

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Those of uvloop are none by inheritance.
        self.transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, index: int, since: float) -> None:
        self.index, self.since = index, since
        self.head_bytes = self.needed = 0
        self.received.clear()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.needed:
            self.head_bytes, self.needed = answer_bytes(self.received)
        if self.needed and len(self.received) >= self.needed:
            is_ok = b" 200 " in self.received[:16]
            self.on_answer(self, is_ok=is_ok, body=bytes(self.received[self.head_bytes : self.needed]))

    def connection_lost(self, error: Exception | None) -> None:
        self.on_lost()


def request_bytes(path: str, body: str) -> bytes:
    content = body.encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def answer_bytes(received: bytearray) -> tuple[int, int]:
    """Returns the sizes of the head and of the whole answer, or 0 and 0 until the head is complete."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return 0, 0
    head = bytes(received[:end]).lower()
    if CHUNKED in head:
        raise ValueError("answers in chunks are not understood here")
    start = head.index(LENGTH) + len(LENGTH)
    return end + 4, end + 4 + int(head[start:].split(b"\r", 1)[0])
