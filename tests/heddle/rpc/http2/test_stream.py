"""A stream's ends with each other and with gRPC's, however its bytes come."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heddle.rpc.channels import open_channel
from heddle.rpc.http2 import frames
from heddle.rpc.http2.client import ClientStream, open_stream
from heddle.rpc.http2.errors import StreamBroken
from heddle.rpc.http2.messages import prefix_of
from heddle.rpc.http2.stream import TURN_BYTES
from tests.heddle.rpc.http2.loops import on_both_loops
from tests.heddle.rpc.http2.peers import (
    ANSWER,
    METHOD,
    REQUEST,
    Wire,
    client_and_wire,
    data,
    echo,
    eventually,
    greeting,
    grpc_server,
    headers,
    serving,
    wire_to,
)

MIXED = [b"", b"1", random.randbytes(16_383), random.randbytes(70_000), random.randbytes(9_000_000), b"", b"last"]
MANY = [number.to_bytes(4, "big") * (number % 50) for number in range(500)]


@asynccontextmanager
async def opened(client: str, target: str) -> AsyncIterator[Any]:
    if client == "ours":
        stream = await open_stream(target, METHOD)
        yield stream
        stream.close()
    else:
        async with open_channel(target) as channel:
            yield channel.stream_stream(METHOD)()


@asynccontextmanager
async def served(server: str, address: str) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        if server == "ours":
            yield (await stack.enter_async_context(serving(echo, address))).target
        else:
            yield await stack.enter_async_context(grpc_server(address=address))


async def echoed(stream: Any, messages: list[bytes]) -> list[bytes]:
    async def write() -> None:
        for message in messages:
            await stream.write(message)

    writing = asyncio.create_task(write())
    answers = [await asyncio.wait_for(stream.read(), 20) for _ in messages]
    await writing
    return answers


@pytest.mark.parametrize("server", ["ours", "grpc"])
@pytest.mark.parametrize("client", ["ours", "grpc"])
@pytest.mark.parametrize("place", ["unix", "127.0.0.1:0", "[::1]:0"])
@on_both_loops
async def test_messages_of_any_size_come_back_in_order(client: str, server: str, place: str, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/socket" if place == "unix" else place
    async with served(server, address) as target, opened(client, target) as stream:
        assert await echoed(stream, MIXED) == MIXED
        assert await echoed(stream, MANY) == MANY


@pytest.mark.parametrize("server", ["ours", "grpc"])
@pytest.mark.parametrize(("scheme", "host"), [("ipv4", "127.0.0.1"), ("ipv6", "[::1]")])
@on_both_loops
async def test_targets_are_written_as_grpc_writes_them(server: str, scheme: str, host: str) -> None:
    async with served(server, f"{host}:0") as target, opened("ours", f"{scheme}:{target}") as stream:
        assert await echoed(stream, [b"1234"]) == [b"1234"]


@on_both_loops
async def test_unix_targets_may_have_slashes(tmp_path: Path) -> None:
    async with served("ours", f"unix:{tmp_path}/socket"), opened("ours", f"unix://{tmp_path}/socket") as stream:
        assert await echoed(stream, [b"1234"]) == [b"1234"]


@pytest.mark.parametrize("server", ["ours", "grpc"])
@on_both_loops
async def test_a_client_that_has_half_closed_gets_the_rest_and_the_end(server: str) -> None:
    async with served(server, "127.0.0.1:0") as target, open_channel(target) as channel:
        call: Any = channel.stream_stream(METHOD)()
        for message in MANY:
            await call.write(message)
        await call.done_writing()
        assert [answer async for answer in call] == MANY
        assert await call.code() is grpc.StatusCode.OK


@on_both_loops
async def test_a_half_closed_stream_of_ours_gets_the_rest_and_the_end() -> None:
    begin = greeting() + headers(REQUEST) + data(b"one", b"two", flags=frames.END_STREAM)
    async with serving() as server, wire_to(server.target, begin) as wire:
        assert (await wire.until(frames.DATA)).payload == prefix_of(b"one") + b"one"
        assert (await wire.until(frames.DATA)).payload == prefix_of(b"two") + b"two"
        await wire.until(frames.HEADERS, frames.END_STREAM)
        assert await wire.rest() == []


def priority(depends_on: int = 0) -> bytes:
    return depends_on.to_bytes(4, "big") + b"\x10"


# Whatever RFC 9113 lets a server say around the messages `a`, 300 times `b`, nothing, `c`.
BLOCK = frames.plain_headers([(":status", "200"), ("content-type", "application/grpc"), ("x", "y" * 200)])
ODD_BUT_RIGHT = b"".join(
    (
        frames.settings_frame({0x99: 7, frames.MAX_FRAME_SIZE: 16_384}),
        frames.frame(frames.HEADERS, frames.PADDED | frames.PRIORITY, 1, b"\x03" + priority() + BLOCK[:9] + b"\0\0\0"),
        frames.frame(frames.CONTINUATION, 0, 1, BLOCK[9:100]),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, BLOCK[100:]),
        frames.frame(0xBE, 0xFF, 1, b"of a later version"),
        frames.frame(0x2, 0, 1, priority()),
        frames.frame(frames.DATA, frames.PADDED, 1, b"\x05" + prefix_of(b"a") + b"a" + b"\0\0\0\0\0"),
        frames.frame(frames.DATA, 0, 1, prefix_of(b"b" * 300)[:3]),
        frames.frame(frames.DATA, frames.PADDED, 1, b"\x00" + prefix_of(b"b" * 300)[3:] + b"b" * 100),
        frames.frame(frames.DATA, 0, 1, b""),
        frames.frame(frames.DATA, 0, 1, b"b" * 200 + prefix_of(b"") + prefix_of(b"c") + b"c"),
        frames.frame(frames.PING, 0, 0, b"12345678"),
        frames.frame(frames.WINDOW_UPDATE, 0, 0, (7).to_bytes(4, "big")),
        headers([("grpc-status", "0"), ("grpc-message", "")], frames.END_STREAM),
        frames.reset(1, frames.NO_ERROR),
    )
)


async def received_in(chunks: list[bytes]) -> list[bytes | None]:
    async with client_and_wire() as (stream, _):
        for chunk in chunks:
            stream.data_received(chunk)
        return [await asyncio.wait_for(stream.read(), 1) for _ in range(5)]


@on_both_loops
async def test_bytes_may_come_one_by_one() -> None:
    chunks = [ODD_BUT_RIGHT[place : place + 1] for place in range(len(ODD_BUT_RIGHT))]
    assert await received_in(chunks) == [b"a", b"b" * 300, b"", b"c", None]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(1, len(ODD_BUT_RIGHT) - 1), max_size=40))
def test_bytes_may_be_cut_anywhere(cuts: set[int]) -> None:
    places = [0, *sorted(cuts), len(ODD_BUT_RIGHT)]
    chunks = [ODD_BUT_RIGHT[one:two] for one, two in itertools.pairwise(places)]
    assert asyncio.run(received_in(chunks)) == [b"a", b"b" * 300, b"", b"c", None]


@on_both_loops
async def test_a_begin_that_comes_byte_by_byte_is_served() -> None:
    begin = greeting() + headers(REQUEST) + data(b"one", b"two")
    async with serving() as server, wire_to(server.target) as wire:
        for place in range(len(begin)):
            wire.send(begin[place : place + 1])
            await asyncio.sleep(0)
        assert (await wire.until(frames.DATA)).payload == prefix_of(b"one") + b"one"


async def garbage_received(stream: ClientStream, wire: Wire, garbage: bytes) -> None:
    stream.data_received(garbage)
    wire.send(garbage)
    await wire.close()
    with contextlib.suppress(StreamBroken):
        async with asyncio.timeout(5):
            while await stream.read() is not None:
                pass


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10), st.integers(0, 255), st.sampled_from((0, 1, 2, 3)), st.binary(max_size=40)))
)
def test_no_frames_whatever_raise_anything_or_hang(sent: list[tuple[int, int, int, bytes]]) -> None:
    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        garbage = b"".join(frames.frame(*one) for one in sent)
        async with client_and_wire(ANSWER) as (stream, wire):
            await garbage_received(stream, wire, garbage)

    failures: list[Any] = []
    asyncio.run(run())
    assert not failures


@on_both_loops
async def test_who_reads_what_is_there_already_leaves_the_loop_its_turns() -> None:
    turns, loop = 0, asyncio.get_running_loop()

    def count() -> None:
        nonlocal turns
        turns += 1
        if stream._messages:
            loop.call_soon(count)

    async with client_and_wire(ANSWER, *(data(bytes(1000)) for _ in range(1000))) as (stream, _):
        await eventually(lambda: len(stream._messages) == 1000)
        loop.call_soon(count)
        for _ in range(1000):
            await stream.read()
        assert turns >= 1000 * 1000 // TURN_BYTES
