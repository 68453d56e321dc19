"""A peer that breaks HTTP/2 is told so and left; whoever reads hears of it; nothing hangs and nothing fills up."""

import asyncio
import struct

import pytest

from heddle.rpc.channels import MESSAGE_BYTES_MAX
from heddle.rpc.errors import ErrorKind
from heddle.rpc.http2 import frames
from heddle.rpc.http2 import stream as stream_module
from heddle.rpc.http2.client import ClientStream, open_stream
from heddle.rpc.http2.errors import StreamBroken
from heddle.rpc.http2.messages import prefix_of
from heddle.rpc.http2.server import ServerStream
from heddle.rpc.http2.stream import FRAME_BYTES_MAX, WINDOW_BYTES
from tests.heddle.rpc.http2.loops import on_both_loops
from tests.heddle.rpc.http2.peers import (
    ANSWER,
    METHOD,
    REQUEST,
    client_and_wire,
    data,
    eventually,
    greeting,
    headers,
    serving,
    wire_to,
)

MIB = 1 << 20
MESSAGE = prefix_of(b"1234") + b"1234"
BLOCK = frames.plain_headers(REQUEST)
TOO_MUCH = data(bytes(200 << 10)) * (3 * WINDOW_BYTES // (200 << 10))


def raw(kind: int, flags: int, payload: bytes = b"", stream: int = 1) -> bytes:
    return frames.frame(kind, flags, stream, payload)


# Of either end, once there is a stream.
VIOLATIONS = {
    "a frame over the size": (frames.frame_header(FRAME_BYTES_MAX + 1, frames.DATA, 0, 1), "over the size"),
    "data of no stream": (raw(frames.DATA, 0, MESSAGE, stream=0), "a stream that is not open"),
    "data of another stream": (raw(frames.DATA, 0, MESSAGE, stream=3), "a stream that is not open"),
    "a compressed message": (raw(frames.DATA, 0, b"\x01\0\0\0\0"), "a compressed message"),
    "a message over the limit": (
        raw(frames.DATA, 0, b"\0" + (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big")),
        "larger than max",
    ),
    "a message without its end": (raw(frames.DATA, frames.END_STREAM, MESSAGE[:-1]), "the end within a message"),
    "more padding than data": (raw(frames.DATA, frames.PADDED, b"\x05abcd"), "more padding"),
    "padding without its length": (raw(frames.DATA, frames.PADDED), "more padding"),
    "priority without room": (raw(frames.HEADERS, frames.PRIORITY, b"\0\0\0\0"), "a priority"),
    "no header block": (raw(frames.HEADERS, frames.END_HEADERS, b"\xff\xff\xff\xff\xff"), ""),
    "headers larger than they come": (raw(frames.HEADERS, frames.END_HEADERS, BLOCK + b"\xbe" * 60_000), ""),
    "a table of headers too large": (raw(frames.HEADERS, frames.END_HEADERS, b"\x3f\xe1\xff\x03"), ""),
    "a header block without end": (
        raw(frames.HEADERS, 0, BLOCK) + 5 * raw(frames.CONTINUATION, 0, bytes(16_000)),
        "header block over the limit",
    ),
    "a header block interrupted": (raw(frames.HEADERS, 0, BLOCK) + raw(frames.PING, 0, bytes(8)), "interrupted"),
    "a header block of two streams": (
        raw(frames.HEADERS, 0, BLOCK) + raw(frames.CONTINUATION, frames.END_HEADERS, b"", stream=3),
        "interrupted",
    ),
    "a continuation of nothing": (raw(frames.CONTINUATION, frames.END_HEADERS), "of nothing"),
    "half a setting": (raw(frames.SETTINGS, 0, b"\0\x04\0", stream=0), ""),
    "frames of no bytes": (frames.settings_frame({frames.MAX_FRAME_SIZE: 0}), "frames of 0 bytes"),
    "frames of too many bytes": (frames.settings_frame({frames.MAX_FRAME_SIZE: 1 << 24}), "frames of 16777216"),
    "a first window too large": (frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 1 << 31}), "a window over"),
    "a window of the stream too large": (frames.window_update(1, 2**31 - 1), "a window over"),
    "a window of the connection too large": (frames.window_update(0, 2**31 - 1), "a window over"),
    "half a window update": (raw(frames.WINDOW_UPDATE, 0, b"\0\0"), "a wrong size"),
    "a long ping": (raw(frames.PING, 0, bytes(9), stream=0), "a wrong size"),
    "a short reset": (raw(frames.RST_STREAM, 0, b"\0"), "a wrong size"),
    "a push": (raw(frames.PUSH_PROMISE, 0, bytes(4)), "a push"),
    "more than there is room for": (TOO_MUCH, "room"),
}


async def everything(stream: ClientStream) -> None:
    while await stream.read() is not None:
        pass


@pytest.mark.parametrize("violation", VIOLATIONS)
@on_both_loops
async def test_a_server_that_breaks_the_rules_is_told_and_left(violation: str) -> None:
    sent, reason = VIOLATIONS[violation]
    async with client_and_wire(ANSWER, sent) as (stream, wire):
        await eventually(lambda: stream._end is not None)
        with pytest.raises(StreamBroken, match=f"broke HTTP/2: .*{reason}") as raised:
            await everything(stream)
        assert raised.value.kind is ErrorKind.UNAVAILABLE
        found = [frame.kind for frame in await wire.rest()]
        assert frames.GOAWAY in found or sent == TOO_MUCH  # of which not all is read, so that TCP may drop the answer
        with pytest.raises(StreamBroken):
            await stream.write(b"1234")


OF_A_CLIENT = {
    "data before headers": data(b"1234"),
    "a second stream": headers(REQUEST) + headers(REQUEST, stream=3),
    "a stream of a server": headers(REQUEST, stream=2),
    "a stream of no number": headers(REQUEST, stream=0),
    "headers in the midst": 2 * headers(REQUEST),
    "data after the end": headers(REQUEST) + data(b"1234", flags=frames.END_STREAM) + data(b"1234"),
    "garbage after the settings": b"GET / HTTP/1.1\r\nHost: heddle\r\n\r\n",
    **{violation: headers(REQUEST) + sent for violation, (sent, _) in VIOLATIONS.items()},
}


@on_both_loops
async def test_clients_that_break_the_rules_are_told_and_left_and_others_are_served() -> None:
    async with serving() as server:
        for violation, sent in OF_A_CLIENT.items():
            async with wire_to(server.target, greeting(), sent) as wire:
                found = await asyncio.wait_for(wire.rest(), 5)
                assert frames.GOAWAY in [frame.kind for frame in found], violation
            await eventually(lambda: not server.doorway._connections)
        stream = await open_stream(server.target, METHOD)
        await stream.write(b"1234")
        assert await stream.read() == b"1234"
        stream.close()


@on_both_loops
async def test_garbage_instead_of_a_preface_is_not_answered_for_long() -> None:
    async with serving() as server, wire_to(server.target, b"\x16\x03\x01 and what else there is in a hello") as wire:
        await asyncio.wait_for(wire.rest(), 5)


OF_A_SERVER = {
    "data before headers": (frames.settings_frame({}) + data(b"1234"), "before the headers"),
    "headers of another stream": (frames.settings_frame({}) + headers([(":status", "200")], stream=3), "not open"),
    "HTTP/1.1": (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1"),
    "an error that is none": (
        ANSWER + headers([("grpc-status", "3"), ("heddle-error-bin", "AAAA")], frames.END_STREAM),
        "",
    ),
    "bytes that are none": (
        ANSWER + headers([("grpc-status", "3"), ("heddle-error-bin", "a")], frames.END_STREAM),
        "",
    ),
}


@pytest.mark.parametrize("violation", OF_A_SERVER)
@on_both_loops
async def test_a_server_that_answers_wrong_is_told_and_left(violation: str) -> None:
    sent, reason = OF_A_SERVER[violation]
    async with client_and_wire(sent) as (stream, wire):
        with pytest.raises(StreamBroken, match=f"broke HTTP/2: .*{reason}") as raised:
            await asyncio.wait_for(stream.read(), 5)
        assert raised.value.kind is ErrorKind.UNAVAILABLE
        assert [frame.kind for frame in await wire.rest()][-1] == frames.GOAWAY


@pytest.mark.parametrize(
    "asked", [raw(frames.PING, 0, bytes(8), stream=0), frames.settings_frame({})], ids=["pings", "settings"]
)
@on_both_loops
async def test_one_that_asks_without_reading_the_answers_is_left(asked: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "UNSENT_BYTES_MAX", MIB)
    async with serving() as server, wire_to(server.target, greeting(), headers(REQUEST)) as wire:
        await wire.until(frames.HEADERS)
        wire.reader._transport.pause_reading()  # type: ignore[attr-defined]
        (served,) = server.doorway._connections
        assert isinstance(served, ServerStream)
        flood, most = asked * (MIB // len(asked)), 0
        try:
            for _ in range(64):
                wire.send(flood)
                await asyncio.wait_for(wire.writer.drain(), 5)
                most = max(most, served._transport.get_write_buffer_size())
        except (ConnectionError, TimeoutError):
            pass  # it is closed, or not read from any more
        assert most <= 2 * MIB
        assert served._end is not None


@on_both_loops
async def test_messages_before_a_violation_are_read_all_the_same() -> None:
    async with client_and_wire(ANSWER, data(b"1"), data(b"2"), raw(frames.SETTINGS, 0, b"odd")) as (stream, _):
        assert [await stream.read(), await stream.read()] == [b"1", b"2"]
        with pytest.raises(StreamBroken):
            await stream.read()


def test_the_reason_travels_as_a_number_of_http2() -> None:
    assert struct.unpack("!II", frames.goaway(1, frames.FLOW_CONTROL_ERROR)[9:]) == (1, 3)
