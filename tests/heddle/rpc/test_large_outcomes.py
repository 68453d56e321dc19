"""Large outcomes on real streams: small ones overtake them, and each is complete, or an error, or sent again."""

import asyncio
from typing import Any

import grpc
import pytest

from heddle.rpc import stream_session as stream_session_module
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.stream import Cancel, LargeOutcome, ServerReply, nothing_to_cancel
from heddle.rpc.stream_server import StreamLimits
from heddle.v1 import engine_pb2, engine_pb2_grpc, tensor_pb2
from tests.heddle.rpc.pods import FINGERPRINT, EnginePod, Held, ask, eventually, pool_of

MIB = 1 << 20
SMALL = b"1234"


class Large:
    """Answers an item with its own bytes, as many times as it says in its first; counts what is released."""

    def __init__(self) -> None:
        self.unreleased = 0

    def submit(self, item: engine_pb2.Submission, deadline: float, reply: ServerReply[engine_pb2.Outcome]) -> Cancel:
        data = item.sequences.token_ids
        if data == SMALL:
            reply(outcome_of(data))
        else:
            self.unreleased += 1
            reply(LargeOutcome(outcome_of(data * MIB), len(data) * MIB, self.release))
        return nothing_to_cancel

    def release(self) -> None:
        self.unreleased -= 1


def outcome_of(data: bytes) -> engine_pb2.Outcome:
    return engine_pb2.Outcome(results=[engine_pb2.Result(tensor=tensor_pb2.Tensor(data=data))])


def hello(*items: bytes, takes_pieces: bool) -> engine_pb2.EngineServiceInferRequest:
    frame = engine_pb2.EngineServiceInferRequest(tokenizer_fingerprint=FINGERPRINT, takes_pieces=takes_pieces)
    for number, data in enumerate(items):
        frame.items.add(id=number, sequences=engine_pb2.Sequences(token_ids=data))
    return frame


async def read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_small_outcomes_overtake_large_ones() -> None:
    large = Large()
    pod = EnginePod(large.submit)
    pool = await pool_of(await pod.start())
    await pool.wait_ready()
    answered: list[bytes] = []
    futures = [ask(pool, letter * 12)[0] for letter in (b"a", b"b", b"c")]
    for future in futures:
        future.add_done_callback(lambda done: answered.append(done.result()))
    small = [await asyncio.wait_for(ask(pool, SMALL)[0], 10) for _ in range(3)]
    assert small == [SMALL] * 3
    assert not answered
    assert await asyncio.wait_for(asyncio.gather(*futures), 20) == [letter * 12 * MIB for letter in (b"a", b"b", b"c")]
    await eventually(lambda: not large.unreleased and not pod.stream.unsent.total)
    await pool.close()
    await pod.stop()


async def test_a_client_that_takes_no_pieces_gets_whole_outcomes() -> None:
    large = Large()
    pod = EnginePod(large.submit)
    async with grpc.aio.insecure_channel(
        await pod.start(), options=[("grpc.max_receive_message_length", 64 * MIB)]
    ) as channel:
        call: Any = engine_pb2_grpc.EngineServiceStub(channel).Infer()
        await call.write(hello(b"ab", SMALL, takes_pieces=False))
        await call.done_writing()
        frames = [frame async for frame in call]
    assert not any(frame.pieces for frame in frames)
    sizes = {outcome.id: len(outcome.results[0].tensor.data) for frame in frames for outcome in frame.outcomes}
    assert sizes == {0: 2 * MIB, 1: 4}
    assert not large.unreleased
    await pod.stop()


async def test_an_outcome_in_pieces_that_proves_too_large_is_an_error_of_its_item_alone() -> None:
    large = Large()
    pod = EnginePod(large.submit, limits=StreamLimits(outcome_bytes_max=3 * MIB))
    pool = await pool_of(await pod.start())
    fits = ask(pool, b"ab")[0]
    with pytest.raises(HeddleError, match="the limit of a message is 3145728") as failed:
        await asyncio.wait_for(ask(pool, b"abcdef")[0], 10)
    assert failed.value.kind is ErrorKind.TOO_LARGE
    assert await asyncio.wait_for(fits, 10) == b"ab" * MIB
    await eventually(lambda: not large.unreleased and not pod.stream.unsent.total)
    (own,) = pool._pods.values()
    assert not own._joiner._unfinished
    await pool.close()
    await pod.stop()


async def test_a_cancelled_item_stops_in_the_middle_of_its_pieces() -> None:
    large = Large()
    pod = EnginePod(large.submit)
    pool = await pool_of(await pod.start())
    await pool.wait_ready()
    (own,) = pool._pods.values()
    cancelled, cancel = ask(pool, b"x" * 48)
    kept = ask(pool, b"abc")[0]
    await eventually(lambda: len(own._joiner._unfinished) == 2)
    cancel()
    assert await asyncio.wait_for(kept, 10) == b"abc" * MIB
    await eventually(lambda: not large.unreleased and not pod.stream.unsent.total)
    assert not own._joiner._unfinished
    assert not cancelled.done()
    await pool.close()
    await pod.stop()


async def test_an_outcome_of_a_pod_that_is_lost_halfway_comes_whole_from_another() -> None:
    first, second = EnginePod(Large().submit), EnginePod(Large().submit)
    pool = await pool_of(await first.start())
    await pool.wait_ready()
    (own,) = pool._pods.values()
    futures = [ask(pool, letter * 24)[0] for letter in (b"a", b"b")]
    await eventually(lambda: len(own._joiner._unfinished) == 2)
    await first.stop()
    pool._targets = (await second.start(),)
    await pool._refresh()
    assert await asyncio.wait_for(asyncio.gather(*futures), 20) == [b"a" * 24 * MIB, b"b" * 24 * MIB]
    assert not own._joiner._unfinished
    await pool.close()
    await second.stop()


async def test_answers_for_a_client_that_is_gone_are_not_kept() -> None:
    """A pass that has begun is not cancelled: its answers come after their stream has ended."""
    held, released = Held(), []
    pod = EnginePod(held.submit)
    pool = await pool_of(await pod.start())
    await pool.wait_ready()
    asked = [ask(pool, data)[0] for data in (SMALL, b"a")]
    await eventually(lambda: len(held.items) == 2)
    replies: list[Any] = [reply for *_, reply in held.items.values()]
    await pool.close()
    await eventually(lambda: len(held.cancelled) == 2)
    for future in asked:
        future.cancel()
    replies[0](outcome_of(SMALL))
    replies[1](LargeOutcome(outcome_of(b"a" * MIB), MIB, lambda: released.append(True)))
    assert not pod.stream.unsent.total
    assert released
    await pod.stop()


@pytest.mark.parametrize(
    "limits",
    [StreamLimits(stall_s_max=0.2), StreamLimits(stall_s_max=60, all_unsent_bytes_max=20 * MIB)],
    ids=["stalls", "holds most of what is unsent"],
)
async def test_a_client_that_reads_too_slowly_loses_its_stream(
    limits: StreamLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_session_module, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(stream_session_module, "SLOW_S", 0.2)
    large = Large()
    pod = EnginePod(large.submit, limits=limits)
    async with grpc.aio.insecure_channel(await pod.start()) as channel:
        call: Any = engine_pb2_grpc.EngineServiceStub(channel).Infer()
        await call.write(hello(b"a" * 20, b"b" * 20, takes_pieces=True))
        pool = await pool_of(pod.target)
        assert await asyncio.wait_for(ask(pool, SMALL)[0], 5) == SMALL
        await eventually(lambda: not large.unreleased and not pod.stream.unsent.total)
        assert await asyncio.wait_for(ask(pool, b"ab")[0], 5) == b"ab" * MIB  # others are not affected
        with pytest.raises(grpc.aio.AioRpcError, match="reads too slowly") as raised:
            await read_all(call)
        assert HeddleError.from_rpc_error(raised.value).kind is ErrorKind.OVERLOADED
        await pool.close()
    await pod.stop()
