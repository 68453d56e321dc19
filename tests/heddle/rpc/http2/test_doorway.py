"""Who comes in by the door of a server: clients of ours, those of gRPC as if they met it alone, and those who are
silent."""

import asyncio
import os
from pathlib import Path
from typing import Any

import grpc
import pytest

from heddle.rpc import stream_server as stream_server_module
from heddle.rpc.channels import open_channel
from heddle.rpc.http2 import doorway as doorway_module
from heddle.rpc.http2 import frames
from heddle.rpc.http2 import server as server_module
from heddle.rpc.http2.client import open_stream
from heddle.rpc.http2.doorway import Doorway, is_stream_alone
from heddle.rpc.http2.errors import StreamBroken
from heddle.rpc.lifecycle import Server
from heddle.rpc.settings import ConfigurationError
from tests.heddle.rpc.http2.loops import on_both_loops
from tests.heddle.rpc.http2.peers import (
    METHOD,
    REQUEST,
    data,
    doubled,
    echo,
    eventually,
    greeting,
    headers,
    serving,
    wire_to,
)
from tests.heddle.rpc.pods import EnginePod

MIB = 1 << 20
REQUEST_OF_PODS = [*REQUEST, (":path", "/heddle.v1.EngineService/Infer")]


def test_a_connection_is_ours_by_its_first_settings() -> None:
    ours = frames.PREFACE + frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 7, frames.STREAM_ALONE: 1})
    assert [is_stream_alone(ours[:size]) for size in range(1, len(ours))] == [None] * (len(ours) - 1)
    assert is_stream_alone(ours)
    assert is_stream_alone(ours + b"and more")


@pytest.mark.parametrize(
    "begin",
    [
        b"GET / HTTP/1.1\r\n",
        b"PRI * HTTP/1.1",
        b"\x16\x03\x01",
        frames.PREFACE + frames.settings_frame({}),
        frames.PREFACE + frames.settings_frame({frames.STREAM_ALONE: 2}),
        frames.PREFACE + frames.frame(frames.PING, 0, 0, bytes(8)),
        frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, bytes(7)),
        frames.PREFACE + frames.frame_header(1 << 20, frames.SETTINGS, 0, 0),
    ],
)
def test_whatever_else_is_grpcs(begin: bytes) -> None:
    assert is_stream_alone(begin) is False


@on_both_loops
async def test_clients_of_grpc_meet_it_as_if_it_were_alone() -> None:
    ended = asyncio.Event()

    async def infer(context: Any) -> None:
        try:
            await echo(context)
        finally:
            ended.set()

    async with serving(infer) as server, open_channel(server.target) as channel:
        call = doubled(channel, bytes(MIB))
        assert (await call).value == bytes(2 * MIB)
        assert ("doubled", "yes") in [*await call.trailing_metadata()]
        for end in ("deadline", "cancel"):
            ended.clear()
            stream: Any = channel.stream_stream(METHOD)(timeout=0.2 if end == "deadline" else None)
            await stream.write(b"1234")
            assert await stream.read() == b"1234"
            if end == "cancel":
                stream.cancel()
            await asyncio.wait_for(ended.wait(), 5)
            expected = grpc.StatusCode.DEADLINE_EXCEEDED if end == "deadline" else grpc.StatusCode.CANCELLED
            assert await stream.code() is expected


@on_both_loops
async def test_pings_of_grpc_are_answered_by_grpc() -> None:
    async with serving() as server:
        options = [("grpc.keepalive_time_ms", 1000), ("grpc.keepalive_timeout_ms", 500)]
        async with grpc.aio.insecure_channel(server.target, options=options) as channel:
            stream: Any = channel.stream_stream(METHOD)()
            await stream.write(b"1")
            assert await stream.read() == b"1"
            await asyncio.sleep(2.2)
            await stream.write(b"2")
            assert await stream.read() == b"2"


@on_both_loops
async def test_hundreds_who_come_at_once_are_all_let_in() -> None:
    async def ours(target: str, number: int) -> bytes | None:
        stream = await open_stream(target, METHOD)
        await stream.write(str(number).encode())
        answer = await stream.read()
        stream.close()
        return answer

    async def theirs(target: str, number: int) -> bytes:
        async with open_channel(target) as channel:
            return bytes((await doubled(channel, str(number).encode())).value)

    async with serving() as server:
        answers: list[Any] = await asyncio.wait_for(
            asyncio.gather(
                *(ours(server.target, number) for number in range(200)),
                *(theirs(server.target, number) for number in range(50)),
            ),
            20,
        )
        assert answers[:200] == [str(number).encode() for number in range(200)]
        assert answers[200:] == [2 * str(number).encode() for number in range(50)]
        await eventually(lambda: not server.doorway._connections)


@on_both_loops
@pytest.mark.parametrize("begin", [b"", frames.PREFACE[:5], frames.PREFACE + b"\0\0\x06\x04"])
async def test_who_says_nothing_is_closed(begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorway_module, "SILENCE_S_MAX", 0.2)
    async with serving() as server, wire_to(server.target, begin) as wire:
        await eventually(lambda: bool(server.doorway._arrivals))
        assert await asyncio.wait_for(wire.reader.read(), 5) == b""
        assert not server.doorway._arrivals


@on_both_loops
async def test_a_stop_closes_who_has_said_nothing_yet() -> None:
    async with serving() as server, wire_to(server.target) as wire:
        await eventually(lambda: bool(server.doorway._arrivals))
        await server.stopped()
        assert await asyncio.wait_for(wire.reader.read(), 1) == b""


@on_both_loops
@pytest.mark.parametrize(("place", "size"), [("unix", 250_000), ("tcp", 4 * MIB - 100)])
async def test_a_stop_sends_what_was_written(place: str, size: int, tmp_path: Path) -> None:
    """As much as the system keeps for a client, which goes on talking, though nobody listens any more."""
    written = asyncio.Event()

    async def infer(context: Any) -> None:
        await context.write(bytes(size))
        written.set()
        await asyncio.Event().wait()

    async with serving(infer, f"unix:{tmp_path}/socket" if place == "unix" else "127.0.0.1:0") as server:
        stream = await open_stream(server.target, METHOD)
        stream._transport.pause_reading()
        await asyncio.wait_for(written.wait(), 5)
        stopping = asyncio.create_task(server.stopped())
        for _ in range(4):
            await asyncio.sleep(0.1)
            await stream.write(bytes(1000))
        stream._transport.resume_reading()
        assert await asyncio.wait_for(stream.read(), 5) == bytes(size)
        with pytest.raises(StreamBroken):
            await asyncio.wait_for(stream.read(), 5)
        await stopping


@on_both_loops
async def test_a_stop_waits_only_so_long_for_a_client_that_does_not_read() -> None:
    async def infer(context: Any) -> None:
        while True:
            await context.write(bytes(MIB))

    async with serving(infer) as server:
        stream = await open_stream(server.target, METHOD)
        stream._transport.pause_reading()
        async with open_channel(server.target) as channel:
            call: Any = channel.stream_stream(METHOD)()
            await call.read()
            began = asyncio.get_running_loop().time()
            await server.stopped()
            assert asyncio.get_running_loop().time() - began < 4
        assert not server.doorway._connections
        stream.close()


@on_both_loops
async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    async def life() -> None:
        address = f"unix:{tmp_path}/socket"
        async with serving(echo_once, address, "127.0.0.1:0") as server:
            for target in server.server.addresses:
                stream = await open_stream(target, METHOD)
                await stream.write(b"1")
                assert await stream.read() == b"1"
                stream.close()
                async with open_channel(target) as channel:
                    assert (await doubled(channel, b"1")).value == b"11"
                async with wire_to(target, greeting(), headers(REQUEST), data(b"1")) as wire:
                    await wire.until(frames.DATA)
        assert not (tmp_path / "socket").exists()

    await life()
    await asyncio.sleep(0.2)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        await life()
    await asyncio.sleep(0.2)
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # noqa: PTH208 - gRPC opens its own when it likes


async def echo_once(context: Any) -> None:
    await context.write(await context.read())


@on_both_loops
async def test_without_grpc_inside_who_is_grpcs_is_turned_away() -> None:
    doorway = Doorway()
    doorway.inner = "unix-abstract:heddle-nobody-listens"
    address = doorway.bind("127.0.0.1:0")
    await doorway.open()
    async with wire_to(address, frames.PREFACE + frames.settings_frame({})) as wire:
        assert await asyncio.wait_for(wire.reader.read(), 5) == b""
    doorway.close()
    await doorway.end_streams(1)
    assert not doorway._connections
    assert not doorway._dials


@on_both_loops
async def test_a_second_address_that_cannot_be_closes_the_first(tmp_path: Path) -> None:
    server = Server([f"unix:{tmp_path}/socket", "192.0.2.1:80"], drain_s_max=1, stop=asyncio.Event())
    with pytest.raises(ConfigurationError):
        await server.serve()
    assert not (tmp_path / "socket").exists()


@on_both_loops
async def test_a_server_of_files_alone_is_reached_through_no_other_door(tmp_path: Path) -> None:
    """What the system lists for everybody would let in whom the folder keeps out."""
    async with serving(echo, f"unix:{tmp_path}/socket") as server:
        assert server.doorway.inner == f"unix:{tmp_path}/socket.grpc"
        async with open_channel(server.target) as channel:
            assert (await doubled(channel, b"1")).value == b"11"
    assert not await asyncio.to_thread(os.listdir, tmp_path)


@on_both_loops
@pytest.mark.parametrize("begin", [greeting(), greeting() + headers(REQUEST_OF_PODS)])
async def test_a_stream_of_which_nothing_comes_is_closed(begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SILENCE_S_MAX", 0.2)
    monkeypatch.setattr(stream_server_module, "HELLO_S_MAX", 0.2)
    monkeypatch.setattr(EnginePod, "has_doorway", True)
    pod = EnginePod()
    async with wire_to(await pod.start(), begin) as wire:
        await asyncio.wait_for(wire.rest(), 5)
    await pod.stop()


async def test_an_inner_address_that_cannot_be_had_is_the_operators_concern(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/".ljust(len("unix:") + 104, "x")
    with pytest.raises(ConfigurationError, match="between the server and gRPC inside of it"):
        await Server([address], drain_s_max=1, stop=asyncio.Event()).serve()
