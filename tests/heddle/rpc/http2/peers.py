"""Both ends of the streams' tests on real sockets: services of bytes, and a peer that speaks HTTP/2 frame by frame."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc
import hpack
from google.protobuf.wrappers_pb2 import BytesValue

from heddle.rpc.channels import SERVER_OPTIONS
from heddle.rpc.http2 import frames
from heddle.rpc.http2.client import ClientStream
from heddle.rpc.http2.messages import prefix_of
from heddle.rpc.lifecycle import Server

SERVICE = "test.Bytes"
METHOD = f"/{SERVICE}/Infer"
UNARY = f"/{SERVICE}/Double"
OURS = {frames.STREAM_ALONE: 1}
REQUEST = [
    *((":method", "POST"), (":scheme", "http"), (":path", METHOD), (":authority", "localhost")),
    ("te", "trailers"),
]
WITHIN_S = 10.0

Infer = Callable[[Any], Awaitable[None]]


async def echo(context: Any) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(message)


class Bytes:
    """A service whose messages are bytes: a stream of the test's choosing, and a unary call that doubles."""

    def __init__(self, infer: Infer = echo) -> None:
        self.infer = infer

    async def Infer(self, _: Any, context: Any) -> None:
        await self.infer(context)

    async def Double(self, request: bytes, context: Any) -> BytesValue:
        context.set_trailing_metadata((("doubled", "yes"),))
        return BytesValue(value=2 * request)


def register(servicer: Bytes, server: Any) -> None:
    """As a generated add_..._to_server does."""
    handlers: dict[str, Any] = {
        "Infer": grpc.stream_stream_rpc_method_handler(servicer.Infer),
        "Double": grpc.unary_unary_rpc_method_handler(servicer.Double),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


class Serving:
    """A server of Heddle that runs in a task of the test."""

    def __init__(self, servicer: Any, listen: tuple[str, ...]) -> None:
        self.stop = asyncio.Event()
        self.warm = asyncio.Event()
        self.server = Server(listen, drain_s_max=5, stop=self.stop)
        self.server.add(SERVICE, register, servicer)
        self.doorway = self.server._doorway
        self.life = asyncio.create_task(self.server.serve(warm_up=self._warm_up))

    async def _warm_up(self) -> None:
        await self.warm.wait()

    @property
    def target(self) -> str:
        return self.server.addresses[0]

    async def stopped(self) -> None:
        self.stop.set()
        await asyncio.wait_for(self.life, WITHIN_S)


@asynccontextmanager
async def serving(infer: Infer = echo, *listen: str, ready: bool = True) -> AsyncIterator[Serving]:
    running = Serving(Bytes(infer), listen or ("127.0.0.1:0",))
    try:
        await eventually(lambda: bool(running.server.addresses))
        if ready:
            running.warm.set()
            await eventually(lambda: running.server._boundary.ready)
        yield running
    finally:
        await running.stopped()
    assert not running.doorway._connections
    assert not running.doorway._arrivals
    assert not running.doorway._dials


@asynccontextmanager
async def grpc_server(infer: Infer = echo, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """gRPC's own, and its target."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    register(Bytes(infer), server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
    finally:
        await server.stop(None)


def doubled(channel: grpc.aio.Channel, data: bytes) -> Any:
    """The call, whose answer is a BytesValue."""
    double: Any = channel.unary_unary(UNARY, response_deserializer=BytesValue.FromString)
    return double(data)


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


class Wire:
    """A peer that sends what the test says, right or wrong, and reads only when asked to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def frame(self) -> Frame:
        header = await asyncio.wait_for(self.reader.readexactly(frames.FRAME_HEADER_BYTES), WITHIN_S)
        kind, flags, stream = header[3], header[4], int.from_bytes(header[5:], "big")
        payload = await asyncio.wait_for(self.reader.readexactly(int.from_bytes(header[:3], "big")), WITHIN_S)
        return Frame(kind, flags, stream, payload)

    async def until(self, kind: int, flags: int = 0, stream: int | None = None) -> Frame:
        """The next frame of that kind which has these flags."""
        while True:
            frame = await self.frame()
            if frame.kind == kind and frame.flags & flags == flags and stream in (None, frame.stream):
                return frame

    async def rest(self) -> list[Frame]:
        """All that comes before the other end closes."""
        found = []
        try:
            while True:
                found.append(await self.frame())
        except (asyncio.IncompleteReadError, ConnectionError):
            return found

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):  # the other end was first
            await self.writer.wait_closed()


def greeting(settings: dict[int, int] | None = None) -> bytes:
    """What a client says before the first stream."""
    return frames.PREFACE + frames.settings_frame({**OURS, **(settings or {})})


def headers(fields: list[tuple[str, str]], flags: int = 0, stream: int = 1) -> bytes:
    return frames.frame(frames.HEADERS, frames.END_HEADERS | flags, stream, frames.plain_headers(fields))


def data(*messages: bytes, flags: int = 0, stream: int = 1) -> bytes:
    """All in one DATA frame."""
    return frames.frame(frames.DATA, flags, stream, b"".join(prefix_of(message) + message for message in messages))


def fields_of(frame: Frame) -> dict[str, str]:
    return {str(name): str(value) for name, value in hpack.Decoder().decode(frame.payload)}


@asynccontextmanager
async def wire_to(target: str, *begin: bytes) -> AsyncIterator[Wire]:
    """A client by hand; it says `begin` first."""
    if target.startswith("unix:"):
        streams = await asyncio.open_unix_connection(target.removeprefix("unix:"))
    else:
        host, _, port = target.rpartition(":")
        streams = await asyncio.open_connection(host, int(port))
    wire = Wire(*streams)
    wire.send(*begin)
    try:
        yield wire
    finally:
        await wire.close()


@asynccontextmanager
async def client_and_wire(*answer: bytes) -> AsyncIterator[tuple[ClientStream, Wire]]:
    """A client of ours, and the server by hand that it is connected to, which says `answer` first."""
    accepted: asyncio.Future[Wire] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(frames.PREFACE))
        accepted.set_result(Wire(reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(lambda: ClientStream(f"{host}:{port}", METHOD), host, port)
    wire = await accepted
    server.close()
    wire.send(*answer)
    try:
        yield stream, wire
    finally:
        stream.close()
        await wire.close()


ANSWER = frames.settings_frame({}) + headers([(":status", "200"), ("content-type", "application/grpc")])


async def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)
