"""The serving end: handlers and their clients, who may leave, stop reading or be told the end."""

import asyncio
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from heddle.rpc.errors import ErrorKind
from heddle.rpc.http2 import frames
from heddle.rpc.http2 import server as server_module
from heddle.rpc.http2.client import open_stream
from heddle.rpc.http2.errors import StreamBroken
from heddle.rpc.http2.messages import prefix_of
from tests.heddle.rpc.http2.loops import on_both_loops
from tests.heddle.rpc.http2.peers import (
    METHOD,
    REQUEST,
    SERVICE,
    data,
    eventually,
    fields_of,
    greeting,
    headers,
    serving,
    wire_to,
)

MIB = 1 << 20


@on_both_loops
async def test_a_client_that_is_gone_cancels_its_handler() -> None:
    cancelled: list[str] = []

    async def wait(context: Any) -> None:
        how = await context.read()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(how.decode())
            raise

    async with serving(wait) as server:
        for how in ("reset", "closed", "aborted"):
            async with wire_to(server.target, greeting(), headers(REQUEST), data(how.encode())) as wire:
                await wire.until(frames.HEADERS)
                if how == "reset":
                    wire.send(frames.reset(1, frames.CANCEL))
                elif how == "closed":
                    wire.writer.close()
                else:
                    wire.writer.transport.abort()
                await eventually(lambda how=how: how in cancelled)  # type: ignore[misc]
        await eventually(lambda: not server.doorway._connections)


@on_both_loops
async def test_a_handler_that_ends_ends_the_stream_and_its_connection() -> None:
    async def say(context: Any) -> None:
        await context.write(b"all")

    async with serving(say) as server:
        async with wire_to(server.target, greeting(), headers(REQUEST)) as wire:
            assert fields_of(await wire.until(frames.HEADERS)) == {
                ":status": "200",
                "content-type": "application/grpc",
            }
            assert (await wire.until(frames.DATA)).payload == prefix_of(b"all") + b"all"
            assert fields_of(await wire.until(frames.HEADERS, frames.END_STREAM))["grpc-status"] == "0"
            assert await wire.rest() == []
        stream = await open_stream(server.target, METHOD)
        assert [await stream.read(), await stream.read(), await stream.read()] == [b"all", None, None]
        stream.close()
        await eventually(lambda: not server.doorway._connections)


@on_both_loops
@pytest.mark.parametrize("place", ["unix", "tcp"])
async def test_what_is_written_last_arrives_although_the_client_goes_on_talking(place: str, tmp_path: Any) -> None:
    """Its talk stays unread, and a socket that is closed over it drops what it has not delivered."""

    async def say(context: Any) -> None:
        await context.read()
        await context.write(bytes(4 * MIB - 100))

    async with serving(say, f"unix:{tmp_path}/socket" if place == "unix" else "127.0.0.1:0") as server:
        stream = await open_stream(server.target, METHOD)
        await stream.write(b"hello")
        transport = stream._transport
        transport.pause_reading()
        await asyncio.sleep(0.1)
        for _ in range(20):
            await stream.write(bytes(1000))
            await asyncio.sleep(0.01)
        transport.resume_reading()
        assert await asyncio.wait_for(stream.read(), 5) == bytes(4 * MIB - 100)
        assert await asyncio.wait_for(stream.read(), 5) is None
        stream.close()


@on_both_loops
async def test_a_client_that_does_not_read_the_end_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LINGER_S_MAX", 0.2)

    async def say(context: Any) -> None:
        await context.write(bytes(MIB * 3))

    async with serving(say) as server:
        stream = await open_stream(server.target, METHOD)
        stream._transport.pause_reading()
        await eventually(lambda: bool(server.doorway._connections))
        await eventually(lambda: not server.doorway._connections)
        stream.close()


@on_both_loops
async def test_no_other_method_is_a_stream() -> None:
    async with serving() as server:
        for method in (f"/{SERVICE}/Double", "/no.Service/Infer", "", "/grpc.health.v1.Health/Watch"):
            stream = await open_stream(server.target, method)
            with pytest.raises(StreamBroken, match=f"^{method} is no stream of this server") as raised:
                await asyncio.wait_for(stream.read(), 5)
            assert raised.value.kind is ErrorKind.UNIMPLEMENTED


@on_both_loops
async def test_a_handler_of_another_sort_is_a_bug_that_the_client_hears_of() -> None:
    """A stream whose handler is a generator is served by gRPC only."""

    async def infer(context: Any) -> None:
        """Replaced."""

    async with serving(infer) as server:
        handler = server.doorway.handlers[METHOD]

        async def generate(_: Any, context: Any) -> Any:
            yield b"1"

        server.doorway.handlers[METHOD] = grpc.stream_stream_rpc_method_handler(
            generate, handler.request_deserializer, handler.response_serializer
        )
        stream = await open_stream(server.target, METHOD)
        with pytest.raises(StreamBroken) as raised:
            await asyncio.wait_for(stream.read(), 5)
        assert raised.value.kind is ErrorKind.INTERNAL


@on_both_loops
async def test_another_implementation_is_a_client_of_ours() -> None:
    """It checks that it gets no more than it gave room for."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    window, code = 100, h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
    connection.local_settings = h2.settings.Settings(client=True, initial_values={code: window})
    connection.initiate_connection()
    connection.data_to_send()  # it knows no settings over 255
    connection.send_headers(1, REQUEST)
    connection.send_data(1, prefix_of(bytes(5000)) + bytes(5000), pad_length=7)
    connection.end_stream(1)
    received = b""
    trailers: dict[Any, Any] = {}
    async with serving() as server, wire_to(server.target, greeting({code: window})) as wire:
        while not trailers:
            wire.send(connection.data_to_send())
            for event in connection.receive_data(await wire.reader.read(1 << 16)):
                if isinstance(event, h2.events.DataReceived):
                    received += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, h2.events.TrailersReceived):
                    trailers = dict(event.headers or [])
    assert received == prefix_of(bytes(5000)) + bytes(5000)
    assert trailers["grpc-status"] == "0"


@on_both_loops
async def test_bytes_that_are_no_message_are_the_clients_mistake() -> None:
    from heddle.v1 import engine_pb2_grpc
    from tests.heddle.rpc.pods import EnginePod

    async with serving() as server:
        add: Any = engine_pb2_grpc.add_EngineServiceServicer_to_server
        server.server.add("heddle.v1.EngineService", add, EnginePod())
        stream = await open_stream(server.target, "/heddle.v1.EngineService/Infer")
        await stream.write(b"\xff\xff\xff")
        with pytest.raises(StreamBroken, match="not a message of this method") as raised:
            await asyncio.wait_for(stream.read(), 5)
        assert raised.value.kind is ErrorKind.INVALID_INPUT
