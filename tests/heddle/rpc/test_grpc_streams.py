"""How gRPC behaves with our options: silent peers, floods, lost connections, a server that stops."""

import asyncio
import logging
import socket
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from heddle.rpc import pod as pod_module
from heddle.rpc import stream_session as stream_session_module
from heddle.rpc.channels import SERVER_OPTIONS, open_channel
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.lifecycle import Server
from heddle.rpc.pool import Pool
from heddle.rpc.settings import ConfigurationError
from heddle.v1 import engine_pb2, engine_pb2_grpc
from tests.heddle.rpc.pods import FINGERPRINT, EnginePod, Held, ask, eventually, pool_of, protocol, serving

MIB = 1 << 20
HELLO = engine_pb2.EngineServiceInferRequest(tokenizer_fingerprint=FINGERPRINT)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS, PING, CONTINUATION = 1, 4, 6, 9


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack("!BBI", kind, flags, stream) + payload


async def read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def until_broken(call: Any) -> AsyncIterator[Any]:
    try:
        while (response := await call.read()) is not grpc.aio.EOF:
            yield response
    except grpc.aio.AioRpcError:
        return


def infer(channel: grpc.aio.Channel) -> Any:
    return engine_pb2_grpc.EngineServiceStub(channel).Infer()


async def test_a_server_that_accepts_and_stays_silent_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_module, "CONNECT_S_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        pool = Pool((target,), protocol())
        await pool.start()
        (pod,) = pool._pods.values()
        await eventually(lambda: pod.refusals.last is not None)
        refusal = pod.refusals.last
        assert refusal is not None
        assert (refusal.kind, refusal.message) == (
            ErrorKind.UNAVAILABLE,
            f"{target} does not answer",
        )
        await pool.close()


async def test_a_stream_without_a_first_frame_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_session_module, "HELLO_S_MAX", 0.2)
    async with serving(EnginePod()) as server, open_channel(server.addresses[0]) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="first frame did not come within") as raised:
            await infer(channel).read()
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_connection_without_a_handshake_is_closed() -> None:
    options = {**dict(SERVER_OPTIONS), "grpc.server_handshake_timeout_ms": 200}
    assert options.keys() == dict(SERVER_OPTIONS).keys()
    server = grpc.aio.server(options=list(options.items()))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.wait_for(reader.read(), 5)  # until it is closed
    writer.close()
    await server.stop(None)


async def test_a_malformed_frame_is_an_error_and_the_pod_is_tried_again() -> None:
    class Garbled(EnginePod):
        async def Infer(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
            await context.write(b"\xff\xff\xff")
            await context.read()

    pod = Garbled()
    pool = await pool_of(await pod.start())
    (own,) = pool._pods.values()
    await eventually(lambda: own.refusals.last is not None)
    assert own.refusals.last is not None
    assert "bytes that are not a frame" in own.refusals.last.message
    await pool.close()
    await pod.stop()


@pytest.mark.parametrize("flood", ["continuation", "ping", "settings"])
async def test_a_flood_of_one_connection_costs_the_others_nothing(flood: str) -> None:
    """The connection is closed, or its frames are cheap to read."""
    begin = PREFACE + frame(SETTINGS, 0, 0)
    repeated = {
        "continuation": frame(CONTINUATION, 0, 1),
        "ping": frame(PING, 0, 0, bytes(8)),
        "settings": frame(SETTINGS, 0, 0),
    }[flood]
    begin += frame(HEADERS, 0, 1) if flood == "continuation" else b""
    async with serving(EnginePod()) as server:
        pool = await pool_of(server.addresses[0])
        await pool.wait_ready()
        host, _, port = server.addresses[0].rpartition(":")
        flooder = socket.create_connection((host, int(port)))
        flooder.setblocking(False)
        flooder.sendall(begin)
        loop = asyncio.get_running_loop()

        async def send_all() -> None:
            try:
                while True:
                    await loop.sock_sendall(flooder, repeated * 5000)
            except OSError:
                pass

        sending = asyncio.create_task(send_all())
        began = time.monotonic()
        for _ in range(100):
            assert await asyncio.wait_for(ask(pool, b"1234")[0], 5) == b"1234"
        assert time.monotonic() - began < 5
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        flooder.close()
        await pool.close()


@pytest.mark.parametrize("how", ["half-close", "cancel", "close"])
async def test_a_client_that_leaves_ends_its_stream(how: str, tmp_path: Path) -> None:
    """Its items are cancelled unless it waits for the answers."""
    held = Held()
    async with serving(EnginePod(held.submit), f"unix:{tmp_path}/socket") as server:
        channel = open_channel(server.addresses[0])
        call = infer(channel)
        first = engine_pb2.EngineServiceInferRequest(tokenizer_fingerprint=FINGERPRINT)
        first.items.add(id=3)
        await call.write(first)
        await call.read()
        await eventually(lambda: bool(held.items))
        if how == "half-close":
            await call.done_writing()
            held.answer_all()
            assert [outcome.id async for frame in until_broken(call) for outcome in frame.outcomes] == [3]
        elif how == "cancel":
            call.cancel()
            await eventually(lambda: held.cancelled == [3])
        await channel.close()
        if how == "close":
            await eventually(lambda: held.cancelled == [3])


async def test_a_frame_over_the_limit_is_too_large_and_not_an_overload() -> None:
    pod = EnginePod(options=[("grpc.max_receive_message_length", 64 << 10)])
    async with open_channel(await pod.start()) as channel:
        call = infer(channel)
        await call.write(HELLO)
        await call.read()
        await call.write(engine_pb2.EngineServiceInferRequest(tokenizer_fingerprint="x" * (128 << 10)))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await read_all(call)
        assert HeddleError.from_rpc_error(raised.value).kind is ErrorKind.TOO_LARGE
    await pod.stop()


async def test_a_stop_sends_what_was_written_and_waits_only_so_long() -> None:
    """One client reads its answer of 16 MiB, the other nothing."""
    held = Held()
    deaf, reader = engine_pb2.EngineServiceInferRequest(), engine_pb2.EngineServiceInferRequest()
    for number, first in enumerate((deaf, reader)):
        first.tokenizer_fingerprint = FINGERPRINT
        first.items.add(id=number, sequences=engine_pb2.Sequences(token_ids=bytes(16 * MIB)))
    async with serving(EnginePod(held.submit), drain_s_max=1) as server:
        channels = [open_channel(server.addresses[0]) for _ in range(2)]
        calls = [infer(channel) for channel in channels]
        await calls[0].write(deaf)
        await calls[1].write(reader)
        await eventually(lambda: len(held.items) == 2)
        held.answer_all()
        server._stop.set()
        began = time.monotonic()
        answers = [outcome async for frame in until_broken(calls[1]) for outcome in frame.outcomes]
        assert [len(outcome.results[0].tensor.data) for outcome in answers] == [16 * MIB]
    assert time.monotonic() - began < 5
    for channel in channels:
        await channel.close()


async def test_a_stop_ends_open_streams_without_an_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(EnginePod()) as server:
        channel = open_channel(server.addresses[0])
        call = infer(channel)
        await call.write(HELLO)
        await call.read()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await read_all(call)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    await channel.close()
    records = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert not [record for record in records if not is_of_closed_loop(record)]


def is_of_closed_loop(record: logging.LogRecord) -> bool:
    """gRPC has one poller for all event loops of a process, and logs late events of an earlier test's loop in the loop
    that runs now."""
    return record.exc_info is not None and str(record.exc_info[1]) == "Event loop is closed"


async def test_a_server_leaves_no_socket_and_no_open_file_behind(tmp_path: Path) -> None:
    async def live() -> None:
        async with serving(EnginePod(), f"unix:{tmp_path}/socket", "127.0.0.1:0") as server:
            for address in server.addresses:
                pool = await pool_of(address)
                assert await asyncio.wait_for(ask(pool, b"1234")[0], 5) == b"1234"
                await pool.close()
        assert not (tmp_path / "socket").exists()

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    await live()
    await asyncio.sleep(0.2)
    before = await asyncio.to_thread(open_files)
    for _ in range(5):
        await live()
    await asyncio.sleep(0.2)
    assert await asyncio.to_thread(open_files) <= before + 3


async def test_a_second_address_that_cannot_be_closes_the_first(tmp_path: Path) -> None:
    server = Server([f"unix:{tmp_path}/socket", "192.0.2.1:80"], drain_s_max=1, stop=asyncio.Event())
    with pytest.raises(ConfigurationError):
        await server.serve()
    assert not (tmp_path / "socket").exists()
