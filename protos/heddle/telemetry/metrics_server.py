"""Serves GET /metrics of a pod, without a key, on its own port and threads, so that Prometheus is answered even while
the event loop is busy. Called by engine and tokenizer pods. The gateway serves its metrics on its HTTP port instead.
"""

import contextlib
import errno
import logging
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from heddle.rpc.listening import PORT_MAX, authority, resolve_host
from heddle.rpc.settings import ConfigurationError
from heddle.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from http.server import HTTPServer

# If the port is in use, this many ports are tried, from it upwards.
PORTS_TRIED = 100

# Connections at the same time; further ones are closed. One that is idle for longer is closed too.
CONNECTIONS_MAX = 16
IDLE_S_MAX = 10.0
BACKLOG = 16

LOOPBACK = "127.0.0.1"

log = logging.getLogger(__name__)


@contextlib.contextmanager
def serve_metrics(metrics: Metrics, host: str, port: int | None, listen: Sequence[str] = ()) -> Iterator[str]:
    """Serves inside the block. Yields the address, or "" if `port` is None.

    An empty `host` means the host of the first host:port in `listen`, else 127.0.0.1. Port 0 means any free port. If
    the port is in use, the next free port above it is taken, so that several pods can run on one machine. Raises
    ConfigurationError."""
    if port is None:
        yield ""
        return
    host = host or next((address.rpartition(":")[0] for address in listen if not address.startswith("unix:")), LOOPBACK)
    listener = listen_near(host.strip("[]"), port)
    address = authority(host.strip("[]"), listener.getsockname()[1])
    log.info("metrics at http://%s/metrics", address)
    stop = threading.Event()
    server = threading.Thread(target=run_server, args=(metrics, listener, stop), name="metrics", daemon=True)
    server.start()
    try:
        yield address
    finally:
        stop.set()
        with contextlib.suppress(OSError):  # wakes the thread
            socket.create_connection(listener.getsockname()[:2], timeout=1).close()
        server.join(1)


def listen_near(host: str, port: int) -> socket.socket:
    """Listens on the port, or on the next free port above it. 0 means any free port."""
    reason = "there is no such port"
    for candidate in range(port, min(port + PORTS_TRIED, PORT_MAX + 1)) if port else (0,):
        try:
            family, ip = resolve_host(host, candidate)[0]
            is_dual = ip == "::" and socket.has_dualstack_ipv6()
            listener = socket.create_server((ip, candidate), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
        except OSError as error:
            reason = str(error.strerror).partition(" (")[0]  # create_server appends the address
            if error.errno == errno.EADDRINUSE:
                continue
            break
        if candidate != port:
            log.warning("port %d is in use: metrics are on port %d", port, candidate)
        return listener
    raise ConfigurationError(f"cannot serve metrics on {authority(host, port)}: {reason}")


def run_server(metrics: Metrics, listener: socket.socket, stop: threading.Event) -> None:
    """Runs on its own thread. `make_server` imports the HTTP server here, so that the start is not delayed."""
    server = make_server(metrics, listener)
    with server:
        while not stop.is_set():
            server.handle_request()


def make_server(metrics: Metrics, listener: socket.socket) -> "HTTPServer":
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    places = threading.BoundedSemaphore(CONNECTIONS_MAX)

    class Handler(BaseHTTPRequestHandler):
        timeout = IDLE_S_MAX
        protocol_version = "HTTP/1.1"
        server_version, sys_version = "heddle", ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, *metrics.expose(self.headers.get("accept", "")))
            else:
                self._answer(404, b"see /metrics\n", "text/plain")

        def log_message(self, *_: object) -> None:
            """Requests for metrics are not logged."""

        def _answer(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def verify_request(self, request: object, client_address: object) -> bool:
            return places.acquire(blocking=False)

        def process_request_thread(self, request: object, client_address: object) -> None:
            try:
                super().process_request_thread(request, client_address)  # type: ignore[arg-type]
            finally:
                places.release()

        def handle_error(self, request: object, client_address: object) -> None:
            if not isinstance(sys.exception(), OSError):  # the client closed the connection
                log.error("cannot serve the metrics", exc_info=True)  # noqa: LOG014 - called in an `except`

    server = Server(("", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    return server
