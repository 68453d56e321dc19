"""One HTTP request and its answer: reads the body within its limits, and cancels the work if the caller hangs up or
cancels its stream of HTTP/2.

The server makes an Exchange for each request, inside the task that answers it, and one Watch for all of them. granian's
protocol object is described at https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

import asyncio
import time
from typing import Any

from granian.rsgi import HTTPProtocol, ProtocolClosed  # type: ignore[attr-defined]  # public, but not marked so

from heddle.rpc.errors import ErrorKind, HeddleError
from http_gateway.errors import Failure
from http_gateway.web.bodies import ArrivingBody, WaitingBodies
from http_gateway.web.message import Headers

# All exchanges are checked together, this often: a timer for each would cost 2 us. Watching a connection costs
# 20 us and begins with the second check, before which most exchanges are over.
CHECK_S = 0.1

# Larger bodies, and those of unknown size, are read in pieces, so that no more is held than is counted. The bytes of
# smaller ones are bounded by their number.
WHOLE_BYTES_MAX = 65_536

# How long the rest of a refused body is read and dropped for. If the connection were closed at once, it would be reset,
# and many clients would not see the answer.
DROP_S_MAX = 2.0


class Watch:
    """All exchanges that are not over. Made and used inside one event loop."""

    def __init__(self, bodies: WaitingBodies) -> None:
        self.bodies = bodies
        self._exchanges: set[Exchange] = set()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, exchange: "Exchange") -> None:
        self._exchanges.add(exchange)
        if self._timer is None:
            self._timer = self._loop.call_later(CHECK_S, self._check)

    def remove(self, exchange: "Exchange") -> None:
        self._exchanges.discard(exchange)

    def _check(self) -> None:
        self._timer = self._loop.call_later(CHECK_S, self._check) if self._exchanges else None
        self.bodies.check()
        for exchange in self._exchanges:
            exchange.check()


class Exchange:
    def __init__(
        self,
        protocol: HTTPProtocol,
        headers: Headers,
        watch: Watch,
        *,
        body_bytes_max: int,
        deadline: float,
        peer: str = "",
    ) -> None:
        """`deadline` is in time.monotonic() seconds."""
        self.peer = peer  # address of the caller
        self._protocol = protocol
        self._headers = headers
        self._body_bytes_max = body_bytes_max
        self._deadline = deadline
        self._task = current_task()
        self._hang_up: asyncio.Future[None] | None = None
        self._is_checked = False
        self._is_reading = False
        self._is_read = False  # the whole body
        self._given_up: Exception | None = None  # why the body is read no further
        self._watch = watch
        watch.add(self)

    async def read(self) -> bytes:
        """The whole body. Raises a 413 as soon as the body is known to be too large, a 408 if it pauses for too
        long, and DEADLINE_EXCEEDED if it does not arrive in the time given to the request."""
        size = self._stated_size()
        is_whole = size is not None and size <= WHOLE_BYTES_MAX
        arriving = self._watch.bodies.begin(self._give_up, size or 0 if is_whole else 0)
        self._is_reading = True
        try:
            body = await (self._read_whole() if is_whole else self._read_pieces(arriving, size))
        except asyncio.CancelledError:
            if self._given_up is None:
                raise
            self._task.uncancel()
            raise self._given_up from None
        finally:
            self._is_reading = False
            self._watch.bodies.finish(arriving)
        self._is_read = True
        return body

    def check(self) -> None:
        """Called every CHECK_S: notices a hang-up from the second call on, and a body that is late."""
        if self._is_checked and self._hang_up is None:
            self._hang_up = asyncio.ensure_future(self._protocol.client_disconnect())
            self._hang_up.add_done_callback(self._on_hang_up)
        self._is_checked = True
        # Handlers keep the deadline themselves.
        if self._is_reading and time.monotonic() >= self._deadline:
            message = "the time given to the request passed before its body had been read"
            self._give_up(HeddleError(ErrorKind.DEADLINE_EXCEEDED, message))

    async def drop_body(self) -> None:
        """Reads and drops the rest of a body that was not read to its end."""
        has_body = "content-length" in self._headers or "transfer-encoding" in self._headers
        if self._is_read or not has_body:
            return
        try:
            async with asyncio.timeout(DROP_S_MAX):
                async for piece in self._protocol:
                    if not piece:
                        return
        except (TimeoutError, RuntimeError):
            return

    def stop_watching(self) -> None:
        """May be called more than once."""
        self._watch.remove(self)
        if self._hang_up is not None:
            self._hang_up.cancel()
            # granian's future keeps its callback for ever, and the garbage collector does not look into it.
            self._hang_up = None

    async def _read_whole(self) -> bytes:
        try:
            return await self._protocol()
        except ProtocolClosed:
            raise cut_off() from None

    async def _read_pieces(self, arriving: ArrivingBody, size: int | None) -> bytes:
        pieces: list[bytes] = []
        received = 0
        async for piece in self._protocol:
            if not piece:  # the end of the body, or of the connection: then pieces would be empty for ever
                break
            received += len(piece)
            self._check_size(received)
            self._watch.bodies.count(arriving, len(piece))
            pieces.append(piece)
        if size is not None and received < size:
            raise cut_off()
        return b"".join(pieces)

    def _give_up(self, error: Exception) -> None:
        if self._given_up is None:
            self._given_up = error
            self._task.cancel()

    def _stated_size(self) -> int | None:
        """Raises a 400 if two headers state it, because they may disagree on where the next request begins."""
        stated = self._headers.get("content-length")
        if stated is None:
            return None
        if "transfer-encoding" in self._headers:
            message = "content-length and transfer-encoding exclude each other"
            raise Failure(400, "invalid_request", message, headers=[("connection", "close")])
        self._check_size(int(stated))
        return int(stated)

    def _check_size(self, size: int) -> None:
        if size > self._body_bytes_max:
            message = f"the body has {size} bytes or more, the limit is {self._body_bytes_max}"
            raise Failure(413, "too_large", message)

    def _on_hang_up(self, hang_up: "asyncio.Future[None]") -> None:
        if not hang_up.cancelled():
            self._task.cancel()


def current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task
    return task


def cut_off() -> HeddleError:
    """Seen in the log and the metrics only."""
    return HeddleError(ErrorKind.CANCELLED, "the connection ended within the body")
