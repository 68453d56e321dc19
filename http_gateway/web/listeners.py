"""The listeners of the HTTP server: granian's, which accept connections from sockets that are ours.

Because a socket outlives the listener that accepts from it, connections wait while a listener is replaced, and with
`GatewaySettings.listen_fd` even while the whole process is.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.net import SocketHolder  # type: ignore[attr-defined]  # public, but not marked so
from granian.server.embed import Server as Granian

from heddle.rpc.credentials import ServerTls, file_versions
from heddle.rpc.settings import ConfigurationError

HEADERS_BYTES_MAX = 65_536
BACKLOG = 4096
# Of one HTTP/2 connection: a caller that reads none of its answers leaves AT_ONCE_BYTES_MAX of each with granian.
STREAMS_MAX = 256

# Also how long a connection may be idle: longer than the 60 s after which load balancers close one of theirs.
HEADERS_MS_MAX = 75_000

# How often the files of the certificate are looked at.
CERTIFICATE_CHECK_S = 1.0
# A new listener has started by then; meanwhile both accept connections.
LISTEN_S = 0.2
# How long a replaced listener keeps connections that have not sent a request yet. granian gives handshakes 10 s.
LINGER_S = 12.0

log = logging.getLogger(__name__)


class Listener(Granian):
    """Accepts connections from a socket that may have other listeners. It is bound, and need not listen yet."""

    def __init__(
        self,
        on_request: Callable[..., Any],
        bound: socket.socket,
        *,
        connections_max: int,
        tls: ServerTls | None = None,
        headers_ms_max: int = HEADERS_MS_MAX,
    ) -> None:
        super().__init__(
            on_request,
            ssl_cert=tls.cert if tls else None,
            ssl_key=tls.key if tls else None,
            ssl_ca=tls.ca if tls else None,
            ssl_client_verify=bool(tls and tls.ca),
            ssl_protocol_min=SSLProtocols.tls12,
            interface=Interfaces.RSGI,
            http=HTTPModes.auto,
            websockets=False,
            backpressure=connections_max,
            http1_settings=HTTP1Settings(header_read_timeout=headers_ms_max, max_buffer_size=HEADERS_BYTES_MAX),
            http2_settings=HTTP2Settings(max_concurrent_streams=STREAMS_MAX, max_headers_size=HEADERS_BYTES_MAX),
            log_enabled=False,
        )
        self._bound = bound
        self._accepted_from = -1

    def _init_shared_socket(self) -> None:
        """Called by granian, which would make a socket here."""
        try:
            self._bound.listen(BACKLOG)
        except OSError as error:  # another process bound the same port, and listened first
            raise ConfigurationError(f"cannot listen on {self._bound.getsockname()}: {error.strerror}") from error
        self._accepted_from = os.dup(self._bound.fileno())  # granian closes it
        is_unix = self._bound.family == socket.AF_UNIX
        backlog = (BACKLOG,) if sys.platform == "linux" else ()
        self._shd = SocketHolder(self._accepted_from, is_unix, *backlog)  # type: ignore[assignment, call-arg]

    def stop_accepting(self) -> None:
        """Leaves new connections to the other listeners of the socket, and keeps those that it has. Only on Linux."""
        if sys.platform == "linux" and self._accepted_from >= 0:
            with socket.socket(socket.AF_UNIX) as silent:  # nobody knows its address, which the kernel chooses
                silent.setblocking(False)  # otherwise granian would wait in it
                silent.bind("")
                silent.listen(1)
                os.dup2(silent.fileno(), self._accepted_from, inheritable=False)


class Listeners:
    """The listeners of a server, and earlier ones that are finishing the requests that they accepted.

    granian reads certificates only when it starts. Once the files change, a second listener accepts from the same
    socket, and the first one stops."""

    def __init__(self, new_tcp_listener: Callable[[], Listener], tls: ServerTls | None) -> None:
        self._new_tcp_listener = new_tcp_listener
        self._tls = tls
        self._files = (tls.cert, tls.key, tls.ca) if tls else ()
        self._versions = self._latest_versions = file_versions(*self._files)
        self._running: dict[asyncio.Task[None], Listener] = {}
        self._needed: list[asyncio.Task[None]] = []  # those of the running ones that have not been stopped
        self._tcp = self.start(new_tcp_listener())

    def start(self, listener: Listener) -> asyncio.Task[None]:
        """Starts a listener that runs until `close`."""
        running = asyncio.ensure_future(listener.serve())
        self._running[running] = listener
        running.add_done_callback(self._running.pop)
        self._needed.append(running)
        return running

    async def serve(self, stopping: "asyncio.Future[Any]") -> None:
        """Returns when `stopping` is done. Raises if a listener ends by itself."""
        timeout = CERTIFICATE_CHECK_S if self._tls else None
        while not stopping.done():
            await asyncio.wait((*self._needed, stopping), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            for listener in self._needed:
                if listener.done():
                    listener.result()
                    raise RuntimeError("the HTTP server has ended")
            if self._tls and not stopping.done():
                await self._renew(self._tls)

    def close(self) -> "asyncio.Future[list[None]]":
        """Stops listening. The future is done when all connections are closed."""
        for listener in self._running.values():
            listener.stop()  # type: ignore[no-untyped-call]
        return asyncio.gather(*self._running)

    async def _renew(self, tls: ServerTls) -> None:
        """Replaces the TCP listener once files have changed, and then not for CERTIFICATE_CHECK_S: granian would end
        the process if it read files of which some are still to be replaced."""
        versions, self._latest_versions = self._latest_versions, file_versions(*self._files)
        if self._latest_versions == self._versions or self._latest_versions != versions:
            return
        try:
            tls.check()
        except ConfigurationError as error:
            self._versions = versions
            log.warning("keeping the old certificate: %s", error)
            return
        previous = self._running[self._tcp]
        renewed = self.start(self._new_tcp_listener())
        await asyncio.sleep(LISTEN_S)
        if renewed.done():  # tried again at the next check
            self._needed.remove(renewed)
            log.error("keeping the old certificate: cannot listen with the new one", exc_info=renewed.exception())
            return
        self._versions = versions
        self._needed.remove(self._tcp)
        previous.stop_accepting()
        asyncio.get_running_loop().call_later(LINGER_S, previous.stop)
        self._tcp = renewed
        log.info("read %s again", tls.cert)


@contextlib.contextmanager
def bound_to(path: Path) -> Iterator[socket.socket]:
    """A socket that has this path, which is removed at the end unless it is another's by then."""
    path.unlink(missing_ok=True)  # a gateway that was killed leaves it behind
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        own = path.stat().st_ino
        try:
            yield bound
        finally:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == own:
                    path.unlink()
