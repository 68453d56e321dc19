"""The addresses of a gRPC server, where two sorts of clients come in by the same door.

A pod's client opens a connection for its one coalescing stream, and says so in its first bytes: that stream is served
here, on the event loop. Every other connection (stubs of any language, proxies, health probes) is gRPC's, which listens
inside of the machine, and gets what they say byte by byte. Used by heddle.rpc.lifecycle.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import grpc

from heddle.rpc.flow_names import relay_address
from heddle.rpc.http2 import frames
from heddle.rpc.http2.dead_peers import give_up_the_dead
from heddle.rpc.http2.relay import Relay, relay
from heddle.rpc.http2.server import Handler, ServerStream
from heddle.rpc.listening import listening_sockets
from heddle.rpc.settings import ConfigurationError

BACKLOG = 1024
# A connection that does not begin within this is closed.
SILENCE_S_MAX = 20.0
FLUSH_POLL_S = 0.01

log = logging.getLogger(__name__)

Connection = ServerStream | Relay


def listen_inside(server: grpc.aio.Server, addresses: Sequence[str]) -> str:
    """An address for us alone; it lets in nobody whom `addresses` keep out. Where those are files in a folder that
    others may not enter, it is one beside them; otherwise it needs neither file nor port where the system has such."""
    if all(address.startswith("unix:") for address in addresses):
        inner = f"{addresses[0]}.grpc"
    elif sys.platform == "linux":
        inner = f"unix-abstract:heddle-{os.getpid()}-{secrets.token_hex(4)}"
    else:
        return f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    try:
        server.add_insecure_port(inner)
    except RuntimeError as error:
        raise ConfigurationError(f"cannot listen on {inner}, between the server and gRPC inside of it") from error
    return inner


class Doorway:
    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}  # of our streams, by `/package.Service/Method`
        self.inner = ""  # gRPC's address, once it listens
        self._sockets: list[socket.socket] = []  # bound, and nobody's yet
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self._arrivals: set[Arrival] = set()
        self._connections: set[Connection] = set()
        self._dials: set[asyncio.Task[None]] = set()

    def bind(self, address: str) -> str:
        """To `host:port` or `unix:/path`; returns the address with the port that port 0 became. Raises
        ConfigurationError."""
        sockets = listening_sockets(address)
        self._sockets += sockets
        if address.startswith("unix:"):
            self._paths.append(Path(address.removeprefix("unix:")))
            return address
        return f"{address.rpartition(':')[0]}:{sockets[0].getsockname()[1]}"

    async def open(self) -> None:
        """Takes connections at all that was bound."""
        while self._sockets:
            self._servers.append(await self._listen(self._sockets.pop()))

    async def _listen(self, listening: socket.socket) -> asyncio.Server:
        loop, arrival = asyncio.get_running_loop(), lambda: Arrival(self, self._arrivals)
        if listening.family == socket.AF_UNIX:
            return await loop.create_unix_server(arrival, sock=listening, backlog=BACKLOG)
        return await loop.create_server(arrival, sock=listening, backlog=BACKLOG)

    def close(self) -> None:
        """Nobody new comes in."""
        for path in self._paths:  # while nobody else takes it for left over
            with contextlib.suppress(OSError):
                path.unlink()
        for server in self._servers:
            server.close()
        for listening in self._sockets:
            listening.close()
        for arrival in self._arrivals:
            arrival.close()

    async def end_streams(self, flush_s_max: float) -> None:
        """Ends our streams, and waits for the connections that gRPC ends, until all have been sent what was written."""
        for connection in list(self._connections):
            if isinstance(connection, ServerStream):
                connection.close()
        try:
            async with asyncio.timeout(flush_s_max):
                while self._connections or self._dials:
                    await asyncio.sleep(FLUSH_POLL_S)
        except TimeoutError:
            log.debug("%d connections do not take what was written", len(self._connections))
            for connection in list(self._connections):
                connection.abort()

    def serve(self, transport: asyncio.Transport, begin: bytes) -> None:
        """A stream of ours; `begin` was read already, without the preface."""
        stream = ServerStream(self.handlers, self._connections.discard)
        self._connections.add(stream)
        transport.set_protocol(stream)
        stream.connection_made(transport)
        stream.data_received(begin)

    def hand_on(self, transport: asyncio.Transport, begin: bytes) -> None:
        """A connection for gRPC; `begin` was read already."""
        transport.pause_reading()
        dial = asyncio.create_task(self._dial(transport, begin))
        self._dials.add(dial)
        dial.add_done_callback(self._dials.discard)

    async def _dial(self, transport: asyncio.Transport, begin: bytes) -> None:
        outer, inner = relay(self._connections.discard)
        outer.connection_made(transport)  # gRPC speaks as soon as it is connected
        try:
            await self._connect(inner, transport.get_extra_info("peername"))
        except OSError as error:
            log.warning("gRPC takes no connection: %s", error)
            transport.close()
            return
        if transport.is_closing():
            inner.close()
            return
        self._connections.update((outer, inner))
        transport.set_protocol(outer)
        transport.resume_reading()
        inner.send(begin)

    async def _connect(self, inner: Relay, peer: object) -> None:
        loop = asyncio.get_running_loop()
        if self.inner.startswith("unix"):
            source = relay_address(peer[0]) if isinstance(peer, tuple) and sys.platform == "linux" else None
            await loop.create_unix_connection(lambda: inner, sock=connected_to(self.inner, source))
        else:
            host, _, port = self.inner.rpartition(":")
            await loop.create_connection(lambda: inner, host, int(port))


def connected_to(address: str, source: str | None) -> socket.socket:
    """A socket connected to `address`, bound to `source` if given. uvloop's own connect takes no abstract address, and
    neither event loop handles a full accept queue well."""
    path = address.removeprefix("unix:").replace("unix-abstract:", "\0", 1)
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    try:
        if source:
            connection.bind(source)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


class Arrival(asyncio.Protocol):
    """A connection of which it is not known yet whose it is."""

    def __init__(self, doorway: Doorway, arrivals: "set[Arrival]") -> None:
        self._doorway = doorway
        self._arrivals = arrivals
        self._begin = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._patience = asyncio.get_running_loop().call_later(SILENCE_S_MAX, transport.close)
        self._arrivals.add(self)
        give_up_the_dead(transport.get_extra_info("socket"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._known()

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._begin += data
        alone = is_stream_alone(self._begin)
        if alone is None:
            return
        self._known()
        if alone:
            self._doorway.serve(self._transport, self._begin[len(frames.PREFACE) :])
        else:
            self._doorway.hand_on(self._transport, self._begin)

    def _known(self) -> None:
        self._patience.cancel()
        self._arrivals.discard(self)


def is_stream_alone(begin: bytes) -> bool | None:
    """Whether a connection is for one stream of ours, as its SETTINGS say; None where they are not there yet."""
    preface, settings = begin[: len(frames.PREFACE)], begin[len(frames.PREFACE) :]
    if not frames.PREFACE.startswith(preface):
        return False
    if len(settings) < frames.FRAME_HEADER_BYTES:
        return None
    size, kind, _, _ = frames.header_of(settings)
    if kind != frames.SETTINGS or size > frames.FRAME_BYTES_MAX_DEFAULT or size % frames.SETTING_BYTES:
        return False
    payload = settings[frames.FRAME_HEADER_BYTES :][:size]
    if len(payload) < size:
        return None
    return (frames.STREAM_ALONE, 1) in frames.settings_of(payload)
