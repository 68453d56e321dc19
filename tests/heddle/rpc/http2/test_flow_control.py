"""Nobody is sent more than there is room for at its end, and what waits for room arrives when there is."""

import asyncio
import random
from typing import Any

import grpc
import pytest

from heddle.rpc.http2 import frames
from heddle.rpc.http2.client import open_stream
from heddle.rpc.http2.messages import prefix_of
from heddle.rpc.http2.stream import WINDOW_BYTES
from tests.heddle.rpc.http2.loops import on_both_loops
from tests.heddle.rpc.http2.peers import (
    ANSWER,
    METHOD,
    REQUEST,
    Wire,
    client_and_wire,
    data,
    eventually,
    greeting,
    headers,
    serving,
    wire_to,
)

MIB = 1 << 20
# What two sockets on one machine hold between them, and asyncio before it asks for a pause.
SOCKETS_BYTES = 8 * MIB


async def settled(count: list[int]) -> int:
    """What has been counted when it counts no more."""
    before = -1
    while before != sum(count):
        before = sum(count)
        await asyncio.sleep(0.2)
    return before


@on_both_loops
async def test_a_client_that_does_not_read_stops_the_writer_and_gets_all_once_it_reads() -> None:
    written: list[int] = []

    async def pour(context: Any) -> None:
        for _ in range(64):
            await context.write(bytes(MIB))
            written.append(MIB)

    async with serving(pour) as server:
        stream = await open_stream(server.target, METHOD)
        assert await settled(written) <= 2 * WINDOW_BYTES + SOCKETS_BYTES
        assert [len(await stream.read() or b"") for _ in range(64)] == [MIB] * 64
        assert await stream.read() is None
        stream.close()


@on_both_loops
async def test_empty_messages_that_nobody_reads_use_up_room_too() -> None:
    async with client_and_wire(ANSWER) as (stream, wire):
        frame = data(*[b""] * 1000)
        for _ in range(WINDOW_BYTES // 5000):
            wire.send(frame)
        await eventually(lambda: len(stream._messages) == WINDOW_BYTES // 5000 * 1000)
        wire.send(3 * frame)
        assert int.from_bytes((await wire.until(frames.WINDOW_UPDATE, stream=1)).payload, "big") <= WINDOW_BYTES
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await wire.until(frames.WINDOW_UPDATE)
        while stream._messages:
            await stream.read()
        await wire.until(frames.WINDOW_UPDATE, stream=1)


@on_both_loops
async def test_a_handler_that_does_not_read_stops_the_client() -> None:
    written: list[int] = []
    go_on = asyncio.Event()
    received: list[int] = []

    async def wait(context: Any) -> None:
        await go_on.wait()
        while (message := await context.read()) is not grpc.aio.EOF:
            received.append(len(message))

    async with serving(wait) as server:
        stream = await open_stream(server.target, METHOD)

        async def pour() -> None:
            for _ in range(64):
                await stream.write(bytes(MIB))
                written.append(MIB)

        pouring = asyncio.create_task(pour())
        assert await settled(written) <= 2 * WINDOW_BYTES + SOCKETS_BYTES
        assert not pouring.done()
        go_on.set()
        await asyncio.wait_for(pouring, 10)
        await eventually(lambda: received == [MIB] * 64)
        stream.close()


async def data_of(wire: Wire, size: int) -> bytes:
    """So many bytes of DATA, and not one more."""
    found = b""
    while len(found) < size:
        found += (await wire.until(frames.DATA)).payload
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await wire.until(frames.DATA)
    assert len(found) == size
    return found


@on_both_loops
async def test_a_small_window_that_shrinks_below_nothing_and_grows_gets_everything() -> None:
    message = random.randbytes(1000)
    async with serving() as server, wire_to(server.target) as wire:
        wire.send(greeting({frames.INITIAL_WINDOW_SIZE: 10}), headers(REQUEST), data(message))
        found = await data_of(wire, 10)
        wire.send(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 0}))
        wire.send(frames.window_update(1, 4))  # 6 less than nothing
        assert await data_of(wire, 0) == b""
        wire.send(frames.window_update(1, 7))
        found += await data_of(wire, 1)
        wire.send(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 100}))
        found += await data_of(wire, 100)
        wire.send(frames.window_update(1, 10_000))
        found += await data_of(wire, 1005 - 111)
        assert found == prefix_of(message) + message


@on_both_loops
async def test_the_room_of_the_connection_counts_like_that_of_the_stream() -> None:
    async with client_and_wire(ANSWER, frames.window_update(1, 1 << 30)) as (stream, wire):
        writing = asyncio.create_task(stream.write(bytes(100_000)))
        await data_of(wire, 65_535)
        assert not writing.done()
        wire.send(frames.window_update(0, 10))
        await data_of(wire, 10)
        wire.send(frames.window_update(0, 1 << 30))
        await data_of(wire, 100_005 - 65_545)
        await writing


@on_both_loops
@pytest.mark.parametrize("size", [16_384, 20_000])
async def test_frames_are_no_larger_than_the_peer_takes(size: int) -> None:
    settings = frames.settings_frame({frames.MAX_FRAME_SIZE: size, frames.INITIAL_WINDOW_SIZE: 1 << 30})
    async with client_and_wire(ANSWER, settings, frames.window_update(0, 1 << 30)) as (stream, wire):
        await eventually(lambda: stream._frame_bytes_max == size and stream._connection_room > MIB)
        await stream.write(bytes(50_000))
        sizes = [len((await wire.until(frames.DATA)).payload) for _ in range(-(-50_005 // size))]
        assert sizes == [*[size] * (50_005 // size), 50_005 % size]


@on_both_loops
async def test_room_is_given_back_for_padding_and_empty_frames_too() -> None:
    """Or else a peer that pads would come to a stop."""
    async with client_and_wire(ANSWER) as (stream, wire):
        padded = frames.frame(frames.DATA, frames.PADDED, 1, b"\xff" + prefix_of(b"a") + b"a" + bytes(255))
        sent = 0
        for _ in range(3 * WINDOW_BYTES // len(padded)):
            wire.send(padded)
            sent += len(padded) - frames.FRAME_HEADER_BYTES
            assert await stream.read() == b"a"
        assert stream._owed <= WINDOW_BYTES // 2
        assert sent > 2 * WINDOW_BYTES
