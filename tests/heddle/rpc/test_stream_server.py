"""The serving end of a stream: what goes wrong with one item stays with that item."""

import asyncio
from typing import Any, cast

import grpc
import pytest
from grpc._cython.cygrpc import _ServerStoppedError  # type: ignore[import-not-found]

from heddle.rpc.channels import Options
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.message_bytes import FRAME_EXTRA_BYTES
from heddle.rpc.pool import Pool
from heddle.rpc.stream import Cancel, Reply, nothing_to_cancel
from heddle.rpc.stream_server import StreamLimits
from heddle.v1 import engine_pb2, engine_pb2_grpc, tensor_pb2
from tests.heddle.rpc.pods import FINGERPRINT, EnginePod, Held, ask, echo, pool_of, protocol

KIB = 1024


class Repeating:
    """Answers an item of N bytes with a hundred times as many, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def submit(self, item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> Cancel:
        data = item.sequences.token_ids
        self.asked.append(data)
        reply(engine_pb2.Outcome(results=[engine_pb2.Result(tensor=tensor_pb2.Tensor(data=100 * data))]))
        return nothing_to_cancel


class StoppedContext:
    """The context of a stream whose server stops at once."""

    def peer(self) -> str:
        return "unix:"

    async def read(self) -> Any:
        raise _ServerStoppedError


async def test_a_server_that_stops_ends_a_stream_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    stream = EnginePod(echo).stream
    await stream.serve(cast("Any", StoppedContext()))
    assert stream.idle
    assert not caplog.records


async def test_a_bug_fails_only_its_own_item() -> None:
    def submit(item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> Cancel:
        if item.sequences.token_ids == b"bug!":
            raise ZeroDivisionError
        return held.submit(item, deadline, reply)

    held = Held()
    pod = EnginePod(submit)
    pool = await pool_of(await pod.start())
    neighbour = ask(pool, b"1234")[0]
    async with asyncio.timeout(5):
        while not held.items:
            await asyncio.sleep(0.005)
    with pytest.raises(HeddleError) as failed:
        await asyncio.wait_for(ask(pool, b"bug!")[0], 5)
    assert failed.value.kind is ErrorKind.INTERNAL
    assert not held.cancelled
    held.answer_all()
    assert await asyncio.wait_for(neighbour, 5) == b"1234"
    await pool.close()
    await pod.stop()


async def test_a_bug_in_what_is_written_ends_the_stream_with_its_error() -> None:
    """Otherwise the client would wait for a stream that writes nothing."""
    pod = EnginePod()
    pod.stream.load = lambda: 1 / 0  # type: ignore[assignment,return-value]
    async with grpc.aio.insecure_channel(await pod.start()) as channel:
        call: Any = engine_pb2_grpc.EngineServiceStub(channel).Infer()
        await call.write(engine_pb2.EngineServiceInferRequest(tokenizer_fingerprint=FINGERPRINT))
        with pytest.raises(grpc.aio.AioRpcError, match="internal error"):
            await asyncio.wait_for(call.read(), 5)
    await pod.stop()


async def test_an_outcome_over_the_message_limit_is_the_error_of_its_item_alone() -> None:
    repeating = Repeating()
    # A server of gRPC that refuses to send more than its frames should have.
    options: Options = [("grpc.max_send_message_length", 64 * KIB + FRAME_EXTRA_BYTES)]
    pod = EnginePod(repeating.submit, limits=StreamLimits(outcome_bytes_max=64 * KIB), options=options)
    pool = await pool_of(await pod.start())
    await pool.wait_ready()
    small = [ask(pool, number.to_bytes(4, "little"))[0] for number in range(300)]
    large = ask(pool, bytes(2 * KIB))[0]
    small += [ask(pool, number.to_bytes(4, "little"))[0] for number in range(300, 600)]
    with pytest.raises(HeddleError, match=r"the answer has \d+ bytes, the limit of a message is 65536") as failed:
        await asyncio.wait_for(large, 5)
    assert failed.value.kind is ErrorKind.TOO_LARGE
    answers = await asyncio.wait_for(asyncio.gather(*small), 5)
    assert answers == [100 * number.to_bytes(4, "little") for number in range(600)]
    assert len(repeating.asked) == 601
    await pool.close()
    await pod.stop()


async def test_frames_of_several_large_outcomes_are_cut_by_their_bytes() -> None:
    limit = 16 * KIB
    pod = EnginePod(limits=StreamLimits(outcome_bytes_max=limit))
    async with grpc.aio.insecure_channel(await pod.start()) as channel:
        call = engine_pb2_grpc.EngineServiceStub(channel).Infer()
        frame = engine_pb2.EngineServiceInferRequest(tokenizer_fingerprint=FINGERPRINT)
        for number in range(50):
            frame.items.add(id=number, sequences=engine_pb2.Sequences(token_ids=bytes(5 * KIB)))
        await call.write(frame)
        await call.done_writing()
        frames = [frame async for frame in call]
    assert [outcome.id for frame in frames for outcome in frame.outcomes] == list(range(50))
    assert max(len(frame.outcomes) for frame in frames) == 3
    assert all(frame.ByteSize() <= limit + FRAME_EXTRA_BYTES for frame in frames)
    await pod.stop()


async def test_an_item_over_the_message_limit_fails_before_it_reaches_the_stream() -> None:
    received: list[bytes] = []

    def submit(item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> Cancel:
        received.append(item.sequences.token_ids)
        return echo(item, deadline, reply)

    options: Options = [("grpc.max_receive_message_length", 64 * KIB + FRAME_EXTRA_BYTES)]
    pod = EnginePod(submit, options=options)
    pool = Pool((await pod.start(),), protocol(item_bytes_max=64 * KIB))
    await pool.start()
    await pool.wait_ready()
    neighbours = [ask(pool, b"1234")[0] for _ in range(10)]
    with pytest.raises(HeddleError, match=r"the request has \d+ bytes, the limit of a message is 65536") as failed:
        await asyncio.wait_for(ask(pool, bytes(64 * KIB))[0], 5)
    assert failed.value.kind is ErrorKind.TOO_LARGE
    largest = bytes(64 * KIB - 100)
    assert await asyncio.wait_for(ask(pool, largest)[0], 5) == largest
    assert await asyncio.wait_for(asyncio.gather(*neighbours), 5) == [b"1234"] * 10
    assert len(received) == 11
    await pool.close()
    await pod.stop()


async def test_many_cancels_find_room_beside_a_large_item() -> None:
    held = Held()
    options: Options = [("grpc.max_receive_message_length", 64 * KIB + FRAME_EXTRA_BYTES)]
    pod = EnginePod(held.submit, options=options)
    changes: list[bool] = []
    pool = Pool((await pod.start(),), protocol(item_bytes_max=64 * KIB), on_change=changes.append)
    await pool.start()
    await pool.wait_ready()
    cancels = [ask(pool, b"1234")[1] for _ in range(30_000)]
    while len(held.items) < 30_000:
        await asyncio.sleep(0.01)
    large = ask(pool, bytes(64 * KIB - 100))[0]
    for cancel in cancels:
        cancel()
    async with asyncio.timeout(10):
        while len(held.cancelled) < 30_000 or len(held.items) < 30_001:
            await asyncio.sleep(0.01)
    held.answer_all()
    await asyncio.wait_for(large, 5)
    assert changes == [True]  # a stream that broke would be made again, and hide it
    await pool.close()
    await pod.stop()


async def test_a_malformed_message_ends_its_stream_with_invalid_input() -> None:
    pod = EnginePod()
    async with grpc.aio.insecure_channel(await pod.start()) as channel:
        call: Any = channel.stream_stream("/heddle.v1.EngineService/Infer")()
        await call.write(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError, match="not a message of this method") as raised:
            await call.read()
        assert HeddleError.from_rpc_error(raised.value).kind is ErrorKind.INVALID_INPUT
    await pod.stop()


async def test_an_id_that_is_in_use_ends_the_stream_and_never_gets_two_outcomes() -> None:
    held = Held()
    pod = EnginePod(held.submit)
    async with grpc.aio.insecure_channel(await pod.start()) as channel:
        call: Any = engine_pb2_grpc.EngineServiceStub(channel).Infer()
        items = [
            engine_pb2.Submission(id=7, sequences=engine_pb2.Sequences(token_ids=ids)) for ids in (b"1234", b"5678")
        ]
        await call.write(engine_pb2.EngineServiceInferRequest(tokenizer_fingerprint=FINGERPRINT, items=items))
        outcomes: list[engine_pb2.Outcome] = []

        async def read_all() -> None:
            async for frame in call:
                outcomes.extend(frame.outcomes)

        with pytest.raises(grpc.aio.AioRpcError, match="id 7 is in use by an unanswered item") as raised:
            await read_all()
        assert HeddleError.from_rpc_error(raised.value).kind is ErrorKind.INVALID_INPUT
        assert not outcomes
    assert len(held.cancelled) == 1  # the one that was accepted
    await pod.stop()
