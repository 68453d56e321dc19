"""The HTTP server: granian, which speaks HTTP/1.1 and HTTP/2 (with prior knowledge), between sockets and the app."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.rsgi import HTTPProtocol, Scope  # type: ignore[attr-defined]  # public, but not marked so
from granian.server.embed import Server as Granian

from heddle.rpc.credentials import ServerTls
from heddle.rpc.listening import authority, usable_port
from http_gateway.deadline import read_deadline
from http_gateway.web.exchange import Exchange
from http_gateway.web.message import REQUEST_ID_ANSWERS, Request, Response
from http_gateway.web.sending import send
from http_gateway.web.watch import Watch

HEADERS_BYTES_MAX = 65_536
BACKLOG = 1024
STREAMS_MAX = 1024  # of one HTTP/2 connection

# Also how long a connection may be idle: longer than the 60 s after which load balancers close one of theirs.
HEADERS_MS_MAX = 75_000

IDLE_POLL_S = 0.01
# Once all is answered, only what is on its way to a socket is waited for.
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
    ) -> None:
        """Port 0 takes a free one. Raises ConfigurationError where nobody can listen there, or for wrong files."""
        if tls:
            tls.check()
        self._answer = answer
        self._body_bytes_max = body_bytes_max
        self._timeout_s = timeout_s
        self._stall_s_max = stall_s_max
        self._exchanges = 0  # that are not over
        self._loop = asyncio.get_running_loop()
        self._watch = Watch()
        self.port = usable_port(host, port)
        self._address = authority(host, self.port)
        self._granian = Granian(
            self._exchange,
            address=numeric(host, self.port),
            port=self.port,
            interface=Interfaces.RSGI,
            http=HTTPModes.auto,
            websockets=False,
            backlog=BACKLOG,
            backpressure=connections_max,
            http1_settings=HTTP1Settings(header_read_timeout=HEADERS_MS_MAX, max_buffer_size=HEADERS_BYTES_MAX),
            http2_settings=HTTP2Settings(max_concurrent_streams=STREAMS_MAX, max_headers_size=HEADERS_BYTES_MAX),
            log_enabled=False,
            ssl_cert=tls.cert if tls else None,
            ssl_key=tls.key if tls else None,
            ssl_ca=tls.ca if tls else None,
            ssl_client_verify=bool(tls and tls.ca),
            ssl_protocol_min=SSLProtocols.tls12,
        )

    async def serve(self, stop: asyncio.Event, drain_s_max: float, announce_draining: Callable[[], None]) -> None:
        """Until `stop` is set and what was accepted is answered, or `drain_s_max` has passed."""
        serving = asyncio.ensure_future(self._granian.serve())
        stopping = asyncio.ensure_future(stop.wait())
        log.info("listening on %s", self._address)
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if serving.done():
            serving.result()
            raise RuntimeError("the HTTP server has ended")
        announce_draining()
        self._granian.stop()  # type: ignore[no-untyped-call]
        idle = asyncio.ensure_future(self._until_idle())
        done, _ = await asyncio.wait((serving, idle), timeout=drain_s_max, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        if not done:
            log.warning("still busy after %g s of draining: closing", drain_s_max)

    async def _until_idle(self) -> None:
        """Granian itself waits for connections whose answer was given up, for as long as their reader likes."""
        while self._exchanges:
            await asyncio.sleep(IDLE_POLL_S)
        await asyncio.sleep(CLOSE_S)

    async def _exchange(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Called by granian, in a task of its own for each request."""
        self._exchanges += 1
        try:
            await self._answered(scope, protocol)
        finally:
            self._exchanges -= 1

    async def _answered(self, scope: Scope, protocol: HTTPProtocol) -> None:
        headers = scope.headers
        deadline = read_deadline(headers, self._timeout_s)
        exchange = Exchange(
            protocol,
            headers,
            self._watch,
            self._loop,
            body_bytes_max=self._body_bytes_max,
            deadline=deadline,
        )
        try:
            request = Request(scope.method, scope.path, headers, deadline, exchange.read, peer=scope.client)
            response = await self._answer(request)
            try:
                await send(
                    protocol,
                    response.status,
                    headers_of(request, response),
                    response.body,
                    stall_s_max=self._stall_s_max,
                    on_taken=exchange.end,
                )
            finally:
                response.release()
                exchange.end()
            if not exchange.is_read:
                await exchange.linger()
        except asyncio.CancelledError:
            return  # nobody is there to answer
        finally:
            exchange.end()


def headers_of(request: Request, response: Response) -> list[tuple[str, str]]:
    return [
        ("content-type", response.content_type),
        ("server", "heddle"),
        *[(name, request.id) for name in REQUEST_ID_ANSWERS],
        *response.headers,
    ]


def numeric(host: str, port: int) -> str:
    """The IP address of a host of this machine."""
    return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
