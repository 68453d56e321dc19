"""Two connections made one: what comes in at the one goes out at the other, and no faster. Used by `doorway`."""

import asyncio
from collections.abc import Callable
from typing import cast

from heddle.rpc.http2.stream import LINGER_S_MAX


class Relay(asyncio.Protocol):
    """One of the two ends."""

    def __init__(self, on_closed: Callable[["Relay"], None]) -> None:
        self._on_closed = on_closed
        self._transport: asyncio.Transport
        self._lingering: asyncio.TimerHandle | None = None
        self.other: Relay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.other.send(data)

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def pause_writing(self) -> None:
        self.other.pause()

    def resume_writing(self) -> None:
        self.other.resume()

    def pause(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        self.other.close()
        self._on_closed(self)

    def close(self) -> None:
        """When all has left that was sent, if its reader takes it in time."""
        if self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER_S_MAX, self.abort)
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


def relay(on_closed: Callable[[Relay], None]) -> tuple[Relay, Relay]:
    """Ends that are each other's, before they are connected. `on_closed` is told of each."""
    ends = Relay(on_closed), Relay(on_closed)
    ends[0].other, ends[1].other = ends[1], ends[0]
    return ends
