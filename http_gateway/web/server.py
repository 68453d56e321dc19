"""The HTTP server: granian, which speaks HTTP/1.1 and HTTP/2 (with prior knowledge), between sockets and the app."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.rsgi import HTTPProtocol, Scope  # type: ignore[attr-defined]  # public, but not marked so
from granian.server.embed import Server as Granian

from heddle.rpc.credentials import ServerTls, file_versions
from heddle.rpc.listening import authority, check_address, usable_port
from heddle.rpc.settings import ConfigurationError
from heddle.rpc.waiting import poll_until
from http_gateway.web.exchange import Exchange, Watch
from http_gateway.web.message import REQUEST_ID_ANSWERS, Request, Response, read_deadline
from http_gateway.web.sending import send

HEADERS_BYTES_MAX = 65_536
BACKLOG = 1024
STREAMS_MAX = 1024  # of one HTTP/2 connection

# Also how long a connection may be idle: longer than the 60 s after which load balancers close one of theirs.
HEADERS_MS_MAX = 75_000

# How often the files of the certificate are looked at.
CERTIFICATE_CHECK_S = 1.0
# A new listener has started by then; meanwhile both accept connections.
LISTEN_S = 0.2

# How long answers may be on their way to a socket once all requests are answered.
CLOSE_S = 1.0

log = logging.getLogger(__name__)


class HttpServer:
    def __init__(
        self,
        answer: Callable[[Request], Awaitable[Response]],
        *,
        host: str,
        port: int,
        connections_max: int,
        body_bytes_max: int,
        timeout_s: float,
        stall_s_max: float,
        tls: ServerTls | None = None,
        unix_socket: Path | None = None,
    ) -> None:
        """Port 0 takes a free one. Raises ConfigurationError if the address or a file of `tls` cannot be used."""
        if tls:
            tls.check()
        if unix_socket:
            check_address(f"unix:{unix_socket}")
        self._unix_socket = unix_socket
        self._answer = answer
        self._body_bytes_max = body_bytes_max
        self._connections_max = connections_max
        self._timeout_s = timeout_s
        self._stall_s_max = stall_s_max
        self._tls = tls
        self._requests = 0  # that are being answered
        self._watch = Watch()
        self.port = usable_port(host, port)
        self._host = numeric_host(host, self.port)
        self._address = authority(host, self.port)

    async def serve(self, stop: asyncio.Event, drain_s_max: float, announce_draining: Callable[[], None]) -> None:
        """Returns once `stop` is set and what was accepted is answered, or `drain_s_max` has passed."""
        stopping = asyncio.ensure_future(stop.wait())
        listeners = Listeners(self._new_tcp_listener, self._tls)
        if self._unix_socket:
            self._unix_socket.unlink(missing_ok=True)  # a gateway that was killed leaves it behind
            listeners.start(self._new_listener(uds=self._unix_socket))
        log.info("listening on %s", self._address)
        try:
            await listeners.serve(stopping)
        finally:
            stopping.cancel()
        announce_draining()
        closed = listeners.close()
        idle = asyncio.ensure_future(self._wait_until_idle())
        done, _ = await asyncio.wait((closed, idle), timeout=drain_s_max, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        if not done:
            log.warning("still busy after %g s of draining: closing", drain_s_max)

    def _new_tcp_listener(self) -> Granian:
        tls = self._tls
        return self._new_listener(
            address=self._host,
            port=self.port,
            ssl_cert=tls.cert if tls else None,
            ssl_key=tls.key if tls else None,
            ssl_ca=tls.ca if tls else None,
            ssl_client_verify=bool(tls and tls.ca),
            ssl_protocol_min=SSLProtocols.tls12,
        )

    def _new_listener(self, **address: Any) -> Granian:
        return Granian(
            self._on_request,
            **address,
            interface=Interfaces.RSGI,
            http=HTTPModes.auto,
            websockets=False,
            backlog=BACKLOG,
            backpressure=self._connections_max,
            http1_settings=HTTP1Settings(header_read_timeout=HEADERS_MS_MAX, max_buffer_size=HEADERS_BYTES_MAX),
            http2_settings=HTTP2Settings(max_concurrent_streams=STREAMS_MAX, max_headers_size=HEADERS_BYTES_MAX),
            log_enabled=False,
        )

    async def _wait_until_idle(self) -> None:
        """granian itself waits for connections whose answer was given up, for as long as their reader likes."""
        await poll_until(lambda: self._requests == 0)
        await asyncio.sleep(CLOSE_S)

    async def _on_request(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Called by granian, in a task of its own for each request."""
        headers = scope.headers
        deadline = read_deadline(headers, self._timeout_s)
        exchange = Exchange(protocol, headers, self._watch, body_bytes_max=self._body_bytes_max, deadline=deadline)
        self._requests += 1
        try:
            request = Request(scope.method, scope.path, headers, deadline, exchange.read, peer=scope.client)
            response = await self._answer(request)
            try:
                await send(
                    protocol,
                    response.status,
                    response_headers(request, response),
                    response.body,
                    stall_s_max=self._stall_s_max,
                    on_taken=exchange.stop_watching,
                )
            finally:
                response.release()
                exchange.stop_watching()
            await exchange.drop_body()
        except asyncio.CancelledError:
            return  # nobody is there to answer
        finally:
            exchange.stop_watching()
            self._requests -= 1


class Listeners:
    """The listeners of a server, and earlier ones that are finishing the requests that they accepted.

    granian reads certificates only when it starts. Once the files change, a second listener starts on the same port and
    the first one stops. A connection that is being made at that moment may be closed before its first request."""

    def __init__(self, new_tcp_listener: Callable[[], Granian], tls: ServerTls | None) -> None:
        self._new_tcp_listener = new_tcp_listener
        self._tls = tls
        self._files = (tls.cert, tls.key, tls.ca) if tls else ()
        self._versions = self._latest_versions = file_versions(*self._files)
        self._running: dict[asyncio.Task[None], Granian] = {}
        self._needed: list[asyncio.Task[None]] = []  # those of the running ones that have not been stopped
        self._tcp = self.start(new_tcp_listener())

    def start(self, listener: Granian) -> asyncio.Task[None]:
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
        previous.stop()  # type: ignore[no-untyped-call]
        self._tcp = renewed
        log.info("read %s again", tls.cert)


def response_headers(request: Request, response: Response) -> list[tuple[str, str]]:
    return [
        ("content-type", response.content_type),
        ("server", "heddle"),
        *[(name, request.id) for name in REQUEST_ID_ANSWERS],
        *response.headers,
    ]


def numeric_host(host: str, port: int) -> str:
    """The IP address of a host of this machine."""
    return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
