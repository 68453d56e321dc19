"""One request on the wire: reads its body within the limits, and cancels the work on it when its caller hangs up.

`server` makes one for each request, inside the task that answers it. What the protocol object of granian
does is described at https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

import asyncio
import time
from typing import Any

from granian.rsgi import HTTPProtocol, ProtocolClosed  # type: ignore[attr-defined]  # public, but not marked so

from heddle.rpc.errors import ErrorKind, HeddleError
from http_gateway.errors import Failure
from http_gateway.web.message import Headers, Hold
from http_gateway.web.watch import LOOK_S, Watch

# Larger bodies, and those of unknown size, are read piece by piece, so that what is held is always known.
WHOLE_BYTES_MAX = 65_536

# How long the rest of a refused body is read and dropped for: closing the connection at once would reset it, and many
# a client would see that before it saw the answer.
LINGER_S_MAX = 2.0


class Exchange:
    __slots__ = (
        "_body_bytes_max",
        "_deadline",
        "_headers",
        "_is_late",
        "_is_over",
        "_is_reading",
        "_loop",
        "_protocol",
        "_task",
        "_timer",
        "_watch",
        "_watcher",
        "is_read",
    )

    def __init__(
        self,
        protocol: HTTPProtocol,
        headers: Headers,
        watch: Watch,
        loop: asyncio.AbstractEventLoop,
        *,
        body_bytes_max: int,
        deadline: float,
    ) -> None:
        """`deadline` is in time.monotonic() seconds; `loop` is the running one."""
        self._protocol = protocol
        self._headers = headers
        self._body_bytes_max = body_bytes_max
        self._task: asyncio.Task[Any] | None = asyncio.current_task(loop)
        self._loop = loop
        self._deadline = deadline
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Future[None] | None = None
        self._is_reading = False
        self._is_late = False
        self._is_over = False
        self.is_read = False  # the whole body
        self._watch = watch
        watch.add(self)
        if self._left_s() < 2 * LOOK_S:
            self._time()

    async def read(self, hold: Hold) -> bytes:
        """The whole body. `hold` is told of each piece. Raises a 413 as soon as that is certain, and
        DEADLINE_EXCEEDED for a body that does not come."""
        self._is_reading = True
        try:
            body = await self._read(hold)
        except asyncio.CancelledError:
            if not (self._is_late and self._task):
                raise
            self._task.uncancel()
            message = "the time given to the request passed before its body had been read"
            raise HeddleError(ErrorKind.DEADLINE_EXCEEDED, message) from None
        finally:
            self._is_reading = False
        self.is_read = True
        return body

    async def linger(self) -> None:
        """Drops what is still coming of a body that nobody read."""
        if not ("content-length" in self._headers or "transfer-encoding" in self._headers):
            return
        try:
            async with asyncio.timeout(LINGER_S_MAX):
                async for piece in self._protocol:
                    if not piece:
                        return
        except (TimeoutError, RuntimeError):
            return

    def watch(self) -> None:
        """It has lasted long: from now on its end and its caller's are watched for."""
        self._time()
        self._watcher = asyncio.ensure_future(self._protocol.client_disconnect())
        self._watcher.add_done_callback(self._on_hang_up)

    def end(self) -> None:
        """No more watching. Once or more often."""
        if self._is_over:
            return
        self._is_over = True
        self._watch.remove(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    async def _read(self, hold: Hold) -> bytes:
        size = self._stated_size()
        if size is None or size > WHOLE_BYTES_MAX:
            return await self._read_pieces(hold, size)
        hold(size)
        try:
            return await self._protocol()
        except ProtocolClosed:
            raise cut_off() from None

    async def _read_pieces(self, hold: Hold, size: int | None) -> bytes:
        pieces: list[bytes] = []
        received = 0
        async for piece in self._protocol:
            if not piece:  # the end, or the connection's: then it would be empty for ever
                break
            received += len(piece)
            hold(len(piece))
            self._check_size(received)
            pieces.append(piece)
        if size is not None and received < size:
            raise cut_off()
        return b"".join(pieces)

    def _stated_size(self) -> int | None:
        """Raises a 400 where two headers state it: which one is meant decides where the next request begins."""
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

    def _time(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._left_s(), self._on_deadline)

    def _left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _on_hang_up(self, watcher: "asyncio.Future[None]") -> None:
        if self._task and not watcher.cancelled():
            self._task.cancel()

    def _on_deadline(self) -> None:
        """Handlers keep the deadline themselves; only a body may take longer."""
        if self._task and self._is_reading:
            self._is_late = True
            self._task.cancel()


def cut_off() -> HeddleError:
    """Tells nobody but the log and the metrics."""
    return HeddleError(ErrorKind.CANCELLED, "the connection ended within the body")
