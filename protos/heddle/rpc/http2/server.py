"""The serving end of a gRPC stream on the event loop's own sockets. Made by `doorway` for each client of ours.

A handler gets the `Context` and uses of it what grpc.aio's context has too: a servicer's method serves both.
"""

import asyncio
import base64
import logging
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeAlias

import grpc

from heddle.rpc.errors import ErrorKind
from heddle.rpc.http2 import frames
from heddle.rpc.http2.errors import ProtocolError, StreamBroken
from heddle.rpc.http2.stream import LINGER_S_MAX, OUR_ROOM, OUR_SETTINGS, Headers, Http2Stream

# The one method of a service that is such a stream.
COALESCING = "Infer"

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Metadata = tuple[tuple[str, bytes], ...]

# A client that has not said within this what it wants is left.
SILENCE_S_MAX = 20.0

log = logging.getLogger(__name__)


class ServerStream(Http2Stream):
    def __init__(self, handlers: Mapping[str, Handler], on_closed: Callable[[Http2Stream], None]) -> None:
        """`handlers` by `/package.Service/Method`, each of a stream in both directions."""
        super().__init__()
        self._handlers = handlers
        self._on_closed = on_closed
        self._running: asyncio.Task[None] | None = None
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._abort_after(SILENCE_S_MAX)
        self._transport.write(frames.settings_frame({**OUR_SETTINGS, frames.MAX_CONCURRENT_STREAMS: 1}) + OUR_ROOM)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._calm()
        self._on_closed(self)

    @property
    def peer(self) -> str:
        """The address in gRPC's form: ipv4:1.2.3.4:5, ipv6:[::1]:5 or unix:"""
        address = self._transport.get_extra_info("peername")
        if not isinstance(address, tuple):
            return "unix:"
        host, port = address[:2]
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def leave(self) -> None:
        """Lets the client close the connection after it has read everything. Closing a socket with unread data in it
        resets the connection, and the client loses what has not arrived."""
        if self._transport.is_closing():
            return
        try:
            self._transport.write_eof()
        except OSError:  # it is gone already
            self.abort()
        self._abort_after(LINGER_S_MAX)

    def abort(self) -> None:
        self._transport.abort()

    def _abort_after(self, seconds: float) -> None:
        self._calm()
        self._patience = asyncio.get_running_loop().call_later(seconds, self.abort)

    def _calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    def on_headers(self, stream: int, headers: Headers, *, ends_stream: bool) -> None:
        if not stream % 2:
            raise ProtocolError("a stream with a server's number")
        if not self.stream:
            self._calm()
            self.stream = stream
            self._write_headers([(":status", "200"), ("content-type", "application/grpc")])
            self._running = asyncio.create_task(self._run(dict(headers).get(":path", "")))
        elif stream != self.stream:
            raise ProtocolError("a second stream on a connection that is for one")
        elif not ends_stream:
            raise ProtocolError("headers in the midst of a stream")
        if ends_stream:
            self.on_peer_finished()

    def on_end(self) -> None:
        """The client is gone, or was wrong: nobody waits for what the handler would say."""
        if self._running is not None:
            self._running.cancel()

    async def _run(self, method: str) -> None:
        handler = self._handlers.get(method)
        if handler is None:
            self.finish(grpc.StatusCode.UNIMPLEMENTED, f"{method} is no stream of this server")
            return
        behaviour: Any = handler.stream_stream
        try:
            await behaviour(None, Context(self, handler))
        except grpc.aio.AbortError:
            return  # its status has been sent
        except Exception:  # the boundary around it lets none through
            log.exception("%s has failed", method)
            self.finish(grpc.StatusCode.INTERNAL, "internal error")
            return
        self.finish(grpc.StatusCode.OK)

    def finish(self, status: grpc.StatusCode, details: str = "", metadata: Metadata = ()) -> None:
        """Ends the stream, and with it the connection, as soon as all that was written has left."""
        self._running = None
        trailers = [("grpc-status", str(status.value[0])), ("grpc-message", urllib.parse.quote(details))]
        trailers += [(key, base64.b64encode(value).decode()) for key, value in metadata]
        self._write_headers(trailers, frames.END_STREAM)
        self._finish(StreamBroken(ErrorKind.CANCELLED, "the stream was ended"))

    def _write_headers(self, headers: Headers, flags: int = 0) -> None:
        if self._end is None:
            block = frames.plain_headers(headers)
            self._transport.write(frames.frame(frames.HEADERS, frames.END_HEADERS | flags, self.stream, block))


class StreamHandlers:
    """Stands in for the server that a generated add_..._to_server asks for: keeps the handlers of our streams."""

    def __init__(self, guarded: Callable[[str, Handler], Handler], handlers: dict[str, Handler]) -> None:
        self._guarded = guarded
        self._handlers = handlers

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The older way to say what add_registered_method_handlers says too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        if COALESCING in handlers:
            method = f"/{service}/{COALESCING}"
            self._handlers[method] = self._guarded(method, handlers[COALESCING])


class Context:
    """As much of grpc.aio.ServicerContext as a handler of streams uses."""

    def __init__(self, stream: ServerStream, handler: Handler) -> None:
        self._stream = stream
        self._deserialize = handler.request_deserializer
        self._serialize = handler.response_serializer

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF. Raises StreamBroken, and DecodeError for what is no message."""
        data = await self._stream.read()
        if data is None:
            return grpc.aio.EOF
        return self._deserialize(data) if self._deserialize else data

    async def write(self, message: Any) -> None:
        """Raises StreamBroken."""
        await self._stream.write(self._serialize(message) if self._serialize else message)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        self._stream.finish(code, details, trailing_metadata)
        raise grpc.aio.AbortError

    def peer(self) -> str:
        return self._stream.peer

    def time_remaining(self) -> None:
        """None: a stream has no deadline, its items have."""
