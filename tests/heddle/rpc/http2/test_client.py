"""The calling end: what it makes of servers that refuse, are something else, or are not there."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from heddle.rpc import pod as pod_module
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.http2 import frames
from heddle.rpc.http2.client import open_stream
from heddle.rpc.http2.errors import StreamBroken
from heddle.rpc.http2.messages import prefix_of
from heddle.rpc.pool import Pool
from tests.heddle.rpc.http2.loops import on_both_loops
from tests.heddle.rpc.http2.peers import (
    ANSWER,
    METHOD,
    client_and_wire,
    data,
    echo,
    eventually,
    grpc_server,
    headers,
    serving,
)
from tests.heddle.rpc.pods import dialect

NASTY = HeddleError(ErrorKind.OVERLOADED, "später: 100 %41\nüber", field="inputs[3].text", retry_after_ms=250)
GRPC = [(":status", "200"), ("content-type", "application/grpc")]


async def refuse(context: Any) -> None:
    await context.read()
    raise NASTY


class OnH2(asyncio.Protocol):
    """A server that h2 speaks for; `answer` is told of each event."""

    def __init__(self, answer: Callable[[h2.connection.H2Connection, h2.events.Event], None]) -> None:
        self.answer = answer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.h2.initiate_connection()
        transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self.answer(self.h2, event)
        self.transport.write(self.h2.data_to_send())


@asynccontextmanager
async def answering(answer: Callable[[h2.connection.H2Connection, h2.events.Event], None]) -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(lambda: OnH2(answer), "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def failure_of(target: str, message: bytes = b"1234", method: str = METHOD) -> StreamBroken:
    stream = await open_stream(target, method)
    await stream.write(message)
    with pytest.raises(StreamBroken) as raised:
        await asyncio.wait_for(stream.read(), 5)
    assert stream._transport.is_closing()
    return raised.value


@on_both_loops
async def test_an_error_arrives_as_the_error_it_was() -> None:
    async with serving(refuse) as server:
        error = await failure_of(server.target)
    assert (error.kind, error.message, error.field, error.retry_after_ms) == (
        NASTY.kind,
        NASTY.message,
        NASTY.field,
        NASTY.retry_after_ms,
    )


@on_both_loops
async def test_an_error_of_the_longest_text_arrives_cut() -> None:
    async def lament(context: Any) -> None:
        raise HeddleError(ErrorKind.INVALID_INPUT, "ü" * 100_000)

    async with serving(lament) as server:
        error = await failure_of(server.target)
    assert error.kind is ErrorKind.INVALID_INPUT
    assert error.message == "ü" * 500


@on_both_loops
async def test_a_bug_of_a_handler_is_an_internal_error() -> None:
    async def stumble(context: Any) -> None:
        raise ZeroDivisionError

    async with serving(stumble) as server:
        assert (await failure_of(server.target)).kind is ErrorKind.INTERNAL


@on_both_loops
async def test_the_status_of_a_server_of_grpc_is_what_it_means() -> None:
    async with grpc_server(echo) as target:
        error = await failure_of(target, method="/test.Bytes/Unknown")
    assert error.kind is ErrorKind.UNIMPLEMENTED


@on_both_loops
async def test_a_server_that_warms_up_says_when_to_come_back() -> None:
    async with serving(ready=False) as server:
        error = await failure_of(server.target)
    assert (error.kind, error.retry_after_ms) == (ErrorKind.UNAVAILABLE, 1000)


@on_both_loops
@pytest.mark.parametrize(
    ("status", "kind"),
    [("503", ErrorKind.UNAVAILABLE), ("404", ErrorKind.UNIMPLEMENTED), ("418", ErrorKind.INTERNAL)],
)
async def test_a_proxy_without_a_server_is_told_by_its_status(status: str, kind: ErrorKind) -> None:
    def answer(connection: h2.connection.H2Connection, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            connection.send_headers(1, [(":status", status), ("content-type", "text/html")])
            connection.send_data(1, b"<html>no server</html>", end_stream=True)

    async with answering(answer) as target:
        error = await failure_of(target)
    assert error.kind is kind
    assert error.message == f"the answer has the HTTP status {status}"


@on_both_loops
async def test_another_implementation_is_a_server_of_ours() -> None:
    """Which checks that it gets no more than it asked for."""

    def answer(connection: h2.connection.H2Connection, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            assert dict(event.headers or []) | {"te": "trailers", ":path": METHOD} == dict(event.headers or [])
            connection.send_headers(1, [(":status", "100")])
            connection.send_headers(1, GRPC)
            connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        elif isinstance(event, h2.events.DataReceived):
            received.append(event.data)
            connection.acknowledge_received_data(event.flow_controlled_length, 1)
            if len(b"".join(received)) == 200_005:
                connection.send_data(1, prefix_of(b"thanks") + b"thanks", pad_length=9)
                connection.send_headers(1, [("grpc-status", "0")], end_stream=True)

    received: list[bytes] = []
    async with answering(answer) as target:
        stream = await open_stream(target, METHOD)
        await asyncio.wait_for(stream.write(bytes(200_000)), 5)
        assert await asyncio.wait_for(stream.read(), 5) == b"thanks"
        assert await stream.read() is None
        stream.close()
    assert b"".join(received) == prefix_of(bytes(200_000)) + bytes(200_000)


@on_both_loops
async def test_a_closed_port_and_a_missing_socket_are_told_at_once() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for target in (f"127.0.0.1:{closed.getsockname()[1]}", "unix:/no/such/socket", "no.such.name.invalid:80"):
            with pytest.raises(HeddleError, match=f"{target} cannot be reached: .") as raised:
                await asyncio.wait_for(open_stream(target, METHOD), 5)
            assert raised.value.kind is ErrorKind.UNAVAILABLE


@on_both_loops
async def test_a_server_that_accepts_and_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_module, "CONNECT_S_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        pool = Pool((target,), dialect())
        await pool.start()
        (pod,) = pool._pods.values()
        await eventually(lambda: pod.refusal is not None, 3)
        assert pod.refusal is not None
        assert (pod.refusal.kind, pod.refusal.message) == (ErrorKind.UNAVAILABLE, f"{target} does not answer")
        await pool.close()


@on_both_loops
@pytest.mark.parametrize("last", [0, 1, 2**31 - 1])
async def test_a_server_that_goes_away_answers_first_what_it_has_accepted(last: int) -> None:
    async with client_and_wire(ANSWER, frames.goaway(last, frames.NO_ERROR), data(b"1")) as (stream, _):
        if last:
            assert await asyncio.wait_for(stream.read(), 5) == b"1"
        else:
            with pytest.raises(StreamBroken, match="going away"):
                await asyncio.wait_for(stream.read(), 5)


@on_both_loops
async def test_what_came_before_the_end_is_read_before_it() -> None:
    end = headers([("grpc-status", "14"), ("grpc-message", "bye")], frames.END_STREAM)
    async with client_and_wire(ANSWER, data(b"1", b"2"), end) as (stream, _):
        await eventually(lambda: stream._end is not None)
        assert [await stream.read(), await stream.read()] == [b"1", b"2"]
        for _ in range(2):
            with pytest.raises(StreamBroken, match="bye"):
                await stream.read()
            with pytest.raises(StreamBroken, match="bye"):
                await stream.write(b"3")


@on_both_loops
async def test_reader_and_writer_that_wait_hear_of_a_lost_connection() -> None:
    async with client_and_wire(ANSWER) as (stream, wire):
        reading = asyncio.create_task(stream.read())
        writing = asyncio.create_task(stream.write(bytes(1 << 20)))
        await wire.until(frames.DATA)
        wire.writer.transport.abort()
        for waiting in (reading, writing):
            with pytest.raises(StreamBroken, match="connection was lost"):
                await asyncio.wait_for(waiting, 5)


@on_both_loops
async def test_a_stream_that_is_closed_says_so_to_its_server_and_its_users() -> None:
    async with client_and_wire(ANSWER) as (stream, wire):
        reading = asyncio.create_task(stream.read())
        writing = asyncio.create_task(stream.write(bytes(1 << 20)))
        await wire.until(frames.DATA)
        stream.close()
        stream.close()
        assert (await wire.until(frames.RST_STREAM)).payload == frames.CANCEL.to_bytes(4, "big")
        for waiting in (reading, writing):
            with pytest.raises(StreamBroken, match="the stream was closed"):
                await asyncio.wait_for(waiting, 5)
        assert await wire.rest() == []


@on_both_loops
async def test_text_that_is_no_utf_8_breaks_nothing() -> None:
    block = frames.plain_headers([("grpc-status", "14"), ("grpc-message", "\xff\xfe bye")])
    end = frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, block)
    async with client_and_wire(ANSWER, end) as (stream, _):
        with pytest.raises(StreamBroken, match="bye"):
            await asyncio.wait_for(stream.read(), 5)
