"""The HTTP server: granian, which speaks HTTP/1.1 and HTTP/2 (with prior knowledge), between sockets and the app."""

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from granian.rsgi import HTTPProtocol, Scope  # type: ignore[attr-defined]  # public, but not marked so

from heddle.rpc.credentials import ServerTls
from heddle.rpc.listening import authority, check_address
from heddle.rpc.waiting import poll_until
from http_gateway.web.bodies import WaitingBodies
from http_gateway.web.crowd import Crowd
from http_gateway.web.exchange import Exchange, Watch
from http_gateway.web.listeners import Listener, Listeners, bound_to
from http_gateway.web.message import REQUEST_ID_ANSWERS, Request, Response, read_deadline
from http_gateway.web.sending import send

# Connections to the port of operations, and how long one of them may be idle: probes make a new one each time.
OPERATIONS_CONNECTIONS_MAX = 256
OPERATIONS_HEADERS_MS_MAX = 10_000

# How long answers may be on their way to a socket once all requests are answered.
CLOSE_S = 1.0

log = logging.getLogger(__name__)

Answering = Callable[[Request], Awaitable[Response]]


class HttpServer:
    def __init__(
        self,
        answer: Answering,
        bound: socket.socket,
        *,
        bodies: WaitingBodies,
        connections_max: int,
        body_bytes_max: int,
        timeout_s: float,
        stall_s_max: float,
        tls: ServerTls | None = None,
        unix_socket: Path | None = None,
        operations: tuple[Answering, socket.socket] | None = None,
    ) -> None:
        """`bound` is a TCP socket, and so is that of `operations`, which is served without TLS and with connections of
        its own. Raises ConfigurationError if a file of `tls` or the path of `unix_socket` cannot be used."""
        if tls:
            tls.check()
        if unix_socket:
            check_address(f"unix:{unix_socket}")
        self._answer = answer
        self._bound = bound
        self._operations = operations
        self._unix_socket = unix_socket
        self._body_bytes_max = body_bytes_max
        self._connections_max = connections_max
        self._timeout_s = timeout_s
        self._stall_s_max = stall_s_max
        self._tls = tls
        self._exchanges: set[Exchange] = set()  # that are not over
        self._watch = Watch(bodies)
        host, self.port = bound.getsockname()[:2]
        self._address = authority(host, self.port)
        self.crowd = Crowd(self.port, self._connections_max, self._busy_ports)

    async def serve(
        self,
        stop: asyncio.Event,
        drain_s_max: float,
        announce_draining: Callable[[], None],
        drain_delay_s: float = 0.0,
    ) -> None:
        """Returns once `stop` is set and what was accepted is answered, or `drain_s_max` has passed. Accepts more for
        `drain_delay_s` after it has announced that it drains."""
        stopping = asyncio.ensure_future(stop.wait())
        crowding = asyncio.ensure_future(self.crowd.watch())
        with contextlib.ExitStack() as sockets:
            listeners = self._start_listeners(sockets)
            log.info(
                "listening on %s%s, for up to %d connections",
                self._address,
                f" with TLS ({self._tls.cert})" if self._tls else "",
                self._connections_max,
            )
            try:
                await listeners.serve(stopping)
                announce_draining()
                await asyncio.sleep(drain_delay_s)
            finally:
                stopping.cancel()
                crowding.cancel()
            closed = listeners.close()
        idle = asyncio.ensure_future(self._wait_until_idle())
        done, _ = await asyncio.wait((closed, idle), timeout=drain_s_max, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        if not done:
            log.warning("still busy after %g s of draining: closing", drain_s_max)

    def _start_listeners(self, sockets: contextlib.ExitStack) -> Listeners:
        """Our own sockets are closed with `sockets`: from then on, connections are refused."""
        on_request = partial(self._on_request, self._answer)
        sockets.enter_context(self._bound)
        new_tcp_listener = partial(
            Listener, on_request, self._bound, connections_max=self._connections_max, tls=self._tls
        )
        listeners = Listeners(new_tcp_listener, self._tls)
        if self._unix_socket:
            bound = sockets.enter_context(bound_to(self._unix_socket))
            listeners.start(Listener(on_request, bound, connections_max=self._connections_max))
        if self._operations:
            answer, bound = self._operations
            listeners.start(
                Listener(
                    partial(self._on_request, answer),
                    sockets.enter_context(bound),
                    connections_max=OPERATIONS_CONNECTIONS_MAX,
                    headers_ms_max=OPERATIONS_HEADERS_MS_MAX,
                )
            )
        return listeners

    def _busy_ports(self) -> set[str]:
        return {exchange.peer.rpartition(":")[2] for exchange in self._exchanges}

    async def _wait_until_idle(self) -> None:
        """granian itself waits for connections whose answer was given up, for as long as their reader likes."""
        await poll_until(lambda: not self._exchanges)
        await asyncio.sleep(CLOSE_S)

    async def _on_request(self, answer: Answering, scope: Scope, protocol: HTTPProtocol) -> None:
        """Called by granian, in a task of its own for each request."""
        headers, peer = scope.headers, scope.client
        deadline = read_deadline(headers, self._timeout_s)
        exchange = Exchange(
            protocol, headers, self._watch, body_bytes_max=self._body_bytes_max, deadline=deadline, peer=peer
        )
        self._exchanges.add(exchange)
        try:
            request = Request(scope.method, scope.path, headers, deadline, exchange.read, peer=peer)
            response = await answer(request)
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
            self._exchanges.discard(exchange)


def response_headers(request: Request, response: Response) -> list[tuple[str, str]]:
    return [
        ("content-type", response.content_type),
        ("server", "heddle"),
        *[(name, request.id) for name in REQUEST_ID_ANSWERS],
        *response.headers,
    ]


def usable_connections(connections_max: int) -> int:
    """Lets the process open twice as many files, because answers and the gateway itself need some too. Returns fewer
    connections if it may not."""
    needed = 2 * connections_max
    files_max, hard_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != files_max < needed:
        files_max = needed if hard_max == resource.RLIM_INFINITY else min(needed, hard_max)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, hard_max))
    if resource.RLIM_INFINITY != files_max < needed:
        log.warning(
            "connections_max is %d, but the process may open %d files only (ulimit -n): accepting %d connections",
            *(connections_max, files_max, files_max // 2),
        )
        return files_max // 2
    return connections_max
