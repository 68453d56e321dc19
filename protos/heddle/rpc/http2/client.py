"""The calling end of a gRPC stream on the event loop's own sockets. Used by heddle.rpc.pod, with any gRPC server."""

import asyncio
import base64
import functools
import socket
import urllib.parse

import grpc
from google.protobuf.message import DecodeError

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.http2 import frames
from heddle.rpc.http2.errors import ProtocolError, StreamBroken
from heddle.rpc.http2.stream import OUR_ROOM, OUR_SETTINGS, Headers, Http2Stream
from heddle.rpc.listening import authority
from heddle.rpc.target import host_and_port, path_of

# What HTTP says where no gRPC server answers: a proxy, mostly.
STATUS_OF_HTTP = {
    "400": grpc.StatusCode.INTERNAL,
    "401": grpc.StatusCode.UNAUTHENTICATED,
    "403": grpc.StatusCode.PERMISSION_DENIED,
    "404": grpc.StatusCode.UNIMPLEMENTED,
    "429": grpc.StatusCode.UNAVAILABLE,
    "502": grpc.StatusCode.UNAVAILABLE,
    "503": grpc.StatusCode.UNAVAILABLE,
    "504": grpc.StatusCode.UNAVAILABLE,
}
# Of a name's several addresses one may swallow everything.
ADDRESS_S_MAX = 1.5

STATUSES = {str(code.value[0]): code for code in grpc.StatusCode}


async def open_stream(target: str, method: str) -> "ClientStream":
    """A stream of its own connection. `target` as in heddle.rpc.target; `method` is `/package.Service/Method`. Raises
    HeddleError (UNAVAILABLE) where nobody listens."""
    try:
        return await dialled(target, method)
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        raise HeddleError(ErrorKind.UNAVAILABLE, f"{target} cannot be reached: {reason}") from error


async def dialled(target: str, method: str) -> "ClientStream":
    """Raises OSError or TimeoutError."""
    loop, path = asyncio.get_running_loop(), path_of(target)
    if path is not None:
        return (await loop.create_unix_connection(functools.partial(ClientStream, "localhost", method), path))[1]
    host, port = host_and_port(target)
    stream = functools.partial(ClientStream, authority(host, port), method)
    places = [place for *_, place in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for place in places:
        try:
            async with asyncio.timeout(ADDRESS_S_MAX):
                return (await loop.create_connection(stream, *place[:2]))[1]
        except (OSError, TimeoutError):
            if place is places[-1]:
                raise
    raise OSError(f"{host} has no address")


class ClientStream(Http2Stream):
    def __init__(self, authority: str, method: str) -> None:
        super().__init__()
        self._request = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "heddle"),
        ]
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.stream = 1
        self._transport.write(
            frames.PREFACE
            + frames.settings_frame({**OUR_SETTINGS, frames.ENABLE_PUSH: 0, frames.STREAM_ALONE: 1})
            + OUR_ROOM
            + frames.frame(frames.HEADERS, frames.END_HEADERS, self.stream, frames.plain_headers(self._request))
        )

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        if not self._answered:
            raise ProtocolError("data before the headers of the answer")
        super()._on_data(flags, stream, payload)

    def on_headers(self, stream: int, headers: Headers, *, ends_stream: bool) -> None:
        if stream != self.stream:
            raise ProtocolError("headers for a stream that is not open")
        fields = dict(headers)
        if not self._answered and not fields.get(":status", "").startswith("1"):
            self._answered = True
            if fields.get(":status") != "200":
                self._finish(broken(http_failure(fields.get(":status", ""))))
                return
        if ends_stream:
            self._on_status(fields)

    def _on_status(self, fields: dict[str, str]) -> None:
        status = STATUSES.get(fields.get("grpc-status", ""), grpc.StatusCode.UNKNOWN)
        if status is grpc.StatusCode.OK:
            self.on_peer_finished()
            return
        try:
            error = failure(status, fields)
        except DecodeError as unreadable:
            raise ProtocolError(f"an error that cannot be read: {unreadable}") from unreadable
        self._finish(broken(error))


def failure(status: grpc.StatusCode, fields: dict[str, str]) -> HeddleError:
    """What the trailers say: the error itself where the server is one of ours."""
    details = urllib.parse.unquote(fields.get("grpc-message", ""))
    metadata = grpc.aio.Metadata(*((key, unwrapped(key, value)) for key, value in fields.items() if key[0] != ":"))
    return HeddleError.from_rpc_error(grpc.aio.AioRpcError(status, grpc.aio.Metadata(), metadata, details))


def unwrapped(key: str, value: str) -> str | bytes:
    """Metadata of bytes travels as base64, with or without padding."""
    return base64.b64decode(value + "=" * (-len(value) % 4)) if key.endswith("-bin") else value


def http_failure(status: str) -> HeddleError:
    code = STATUS_OF_HTTP.get(status, grpc.StatusCode.UNKNOWN)
    return failure(code, {"grpc-message": f"the answer has the HTTP status {status or 'of nothing'}"})


def broken(error: HeddleError) -> StreamBroken:
    return StreamBroken(error.kind, error.message, field=error.field, retry_after_ms=error.retry_after_ms)
