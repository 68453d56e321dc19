"""Closes idle connections when nearly as many are open as may be, so that new ones need not wait. Called by the server.

granian stops accepting at its limit, and closes a connection only once it has been idle for 75 s. It does not say which
connections it has, but the kernel does: they are files of this process. Linux only; elsewhere nothing is closed.
"""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CHECK_S = 0.1
# After it was found that the many files are not connections.
PAUSE_S = 1.0
# Shares of the connections that may be open. From the first on, idle ones are closed until the second is reached.
CROWDED = 15 / 16
RELAXED = 7 / 8
# A connection that is younger, or was answered more recently, may have a request that this process has not seen yet.
# So may one that has received something more recently, but it may also be a request that never becomes whole: such
# connections are closed after all others.
IDLE_MS_MIN = 1_000

FILES = Path("/proc/self/fd")
# struct tcp_info of <linux/tcp.h>: 8 bytes, then words. Those used here are the milliseconds since data were sent and
# received or, if none ever were, since the connection was made.
TCP_INFO_BYTES = 104
LAST_SENT_AND_RECEIVED = struct.Struct("=44xI4xI")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    file: int
    peer: tuple[object, ...]
    idle_ms: int  # nothing was sent
    silent_ms: int  # nothing was received


class Crowd:
    def __init__(self, port: int, connections_max: int, busy_ports: Callable[[], set[str]]) -> None:
        """`busy_ports` returns the ports of peers whose requests are being answered, in digits."""
        self._port = port
        self._connections_max = connections_max
        self._busy_ports = busy_ports
        self.closed = 0  # connections since the start
        self._other_files = 0  # about so many files are no connections

    async def watch(self) -> None:
        """Runs until it is cancelled."""
        if not has_files():
            return
        self._other_files = count_files()
        while True:
            await asyncio.sleep(CHECK_S)
            if count_files() - self._other_files < CROWDED * self._connections_max:
                continue
            try:
                is_crowded = await self._close_idle()
            except OSError as error:  # no file is left to look at the files
                log.warning("cannot look for idle connections: %s", error)
                is_crowded = False
            if not is_crowded:
                await asyncio.sleep(PAUSE_S)

    async def _close_idle(self) -> bool:
        """Whether there are too many connections at all."""
        found = await asyncio.to_thread(lambda: list(connections(self._port)))
        if len(found) < CROWDED * self._connections_max:
            return False
        busy = self._busy_ports()
        idle = [one for one in found if one.idle_ms >= IDLE_MS_MIN and str(one.peer[1]) not in busy]
        idle.sort(key=lambda one: (one.silent_ms >= IDLE_MS_MIN, one.idle_ms), reverse=True)
        excess = len(found) - int(RELAXED * self._connections_max)
        closed = sum(close(one) for one in idle[:excess])
        self.closed += closed
        if closed:
            log.debug("%d connections are open: closed %d that were idle", len(found), closed)
        return True


def has_files() -> bool:
    return FILES.exists()


def count_files() -> int:
    """Open files of this process."""
    return FILES.stat().st_size or sum(1 for _ in FILES.iterdir())  # kernels before 6.2 give no size


def connections(port: int) -> Iterator[Connection]:
    """Those that were accepted on a port, and are still open."""
    for file in [int(path.name) for path in FILES.iterdir()]:
        with contextlib.suppress(OSError), borrowed(file) as one:
            if one.getsockname()[1:2] == (port,):
                info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
                yield Connection(file, one.getpeername(), *LAST_SENT_AND_RECEIVED.unpack_from(info))


@contextlib.contextmanager
def borrowed(file: int) -> Iterator[socket.socket]:
    """A socket object for a file that belongs to somebody else. It need not be a socket."""
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=file)
    try:
        yield one
    finally:
        one.detach()


def close(connection: Connection) -> bool:
    """Ends a connection, which its owner notices. Its file may be another connection's by now: then nothing is done."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=os.dup(connection.file)) as one:
            if one.getpeername() != connection.peer:
                return False
            one.shutdown(socket.SHUT_RDWR)
            return True
    except OSError:
        return False
