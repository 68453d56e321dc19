"""The coalescing stream over real sockets: what is asked is answered once, whatever happens to pods and callers."""

import asyncio
import random
import time
from pathlib import Path

import pytest

from heddle.rpc import pod as pod_module
from heddle.rpc import stream_session as stream_session_module
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.pool import Pool, PoolLimits
from heddle.rpc.stream import Cancel, Reply, nothing_to_cancel
from heddle.rpc.stream_server import StreamLimits
from heddle.v1 import engine_pb2
from tests.heddle.rpc.pods import EnginePod, Held, ask, eventually, pool_of, protocol, submission


async def test_every_item_gets_its_own_answer() -> None:
    pod = EnginePod()
    pool = await pool_of(await pod.start())
    await pool.wait_ready()
    futures = [ask(pool, number.to_bytes(4, "little"))[0] for number in range(5000)]
    answers = await asyncio.wait_for(asyncio.gather(*futures), 10)
    assert answers == [number.to_bytes(4, "little") for number in range(5000)]
    await pool.close()
    await pod.stop()


async def test_unix_sockets_work_alike(tmp_path: Path) -> None:
    pod = EnginePod()
    pool = await pool_of(await pod.start(f"unix:{tmp_path}/pod"))
    assert await asyncio.wait_for(ask(pool, b"1234")[0], 5) == b"1234"
    await pool.close()
    await pod.stop()


async def test_messages_beyond_grpc_default_of_4_mib_pass() -> None:
    pod = EnginePod()
    pool = await pool_of(await pod.start())
    data = random.randbytes(9 << 20)
    small = ask(pool, b"1234")[0]
    assert await asyncio.wait_for(ask(pool, data)[0], 10) == data
    assert await small == b"1234"
    await pool.close()
    await pod.stop()


async def test_cancel_reaches_the_pod_and_the_caller_hears_nothing_more() -> None:
    held = Held()
    pod = EnginePod(held.submit)
    pool = await pool_of(await pod.start())
    cancelled, cancel = ask(pool, b"1111")
    kept, _ = ask(pool, b"2222")
    await eventually(lambda: len(held.items) == 2)
    cancel()
    await eventually(lambda: len(held.cancelled) == 1)
    held.answer_all()
    assert await asyncio.wait_for(kept, 5) == b"2222"
    assert not cancelled.done()
    await pool.close()
    await pod.stop()


async def test_a_client_that_disconnects_cancels_its_items() -> None:
    held = Held()
    pod = EnginePod(held.submit)
    pool = await pool_of(await pod.start())
    for _ in range(10):
        ask(pool, b"1234")
    await eventually(lambda: len(held.items) == 10)
    await pool.close()
    await eventually(lambda: len(held.cancelled) == 10)
    await pod.stop()


async def test_deadline_travels_as_time_left() -> None:
    held = Held()
    pod = EnginePod(held.submit)
    pool = await pool_of(await pod.start())
    deadline = time.monotonic() + 30
    ask(pool, b"1234", deadline)
    ask(pool, b"1234")
    await eventually(lambda: len(held.items) == 2)
    arrived = sorted(deadline for _, deadline, _ in held.items.values())
    assert arrived[0] == pytest.approx(deadline, abs=1)
    assert arrived[1] == float("inf")
    await pool.close()
    await pod.stop()


async def test_an_item_with_an_expired_deadline_is_not_sent() -> None:
    held = Held()
    pod = EnginePod(held.submit)
    pool = await pool_of(await pod.start())
    await pool.wait_ready()
    future, _ = ask(pool, b"1234", time.monotonic() - 1)
    with pytest.raises(HeddleError) as raised:
        await asyncio.wait_for(future, 5)
    assert raised.value.kind is ErrorKind.DEADLINE_EXCEEDED
    assert not held.items
    await pool.close()
    await pod.stop()


async def test_an_error_arrives_as_the_error_it_was() -> None:
    def refuse(item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> Cancel:
        reply(HeddleError(ErrorKind.OVERLOADED, "not now", field="inputs", retry_after_ms=250))
        return nothing_to_cancel

    pod = EnginePod(refuse)
    pool = await pool_of(await pod.start())
    with pytest.raises(HeddleError) as raised:
        await asyncio.wait_for(ask(pool, b"1234")[0], 5)
    error = raised.value
    assert (error.kind, error.message, error.field, error.retry_after_ms) == (
        ErrorKind.OVERLOADED,
        "not now",
        "inputs",
        250,
    )
    await pool.close()
    await pod.stop()


async def test_the_refusal_of_another_tokenizer_reaches_the_caller() -> None:
    pod = EnginePod()
    pool = Pool((await pod.start(),), protocol("another"), limits=PoolLimits(no_pod_s_max=0.5))
    await pool.start()
    with pytest.raises(HeddleError, match="another model's") as raised:
        await asyncio.wait_for(ask(pool, b"1234")[0], 5)
    assert raised.value.kind is ErrorKind.MISMATCH
    assert not pool.ready
    await pool.close()
    await pod.stop()


async def test_a_silent_pod_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stopped, or a network that swallows everything, sends no heartbeat."""
    monkeypatch.setattr(pod_module, "SILENCE_S_MAX", 0.3)
    monkeypatch.setattr(pod_module, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr("heddle.rpc.stream_server.BUSY_HEARTBEAT_S", 60.0)
    held = Held()
    silent, living = EnginePod(held.submit), EnginePod()
    pool = await pool_of(await silent.start())
    future, _ = ask(pool, b"1234")
    await eventually(lambda: len(held.items) == 1)
    # Of streams that begin from now on: the silent pod sleeps until its first heartbeat, which comes too late.
    monkeypatch.setattr(stream_session_module, "HEARTBEAT_S", 0.05)
    await living.start()
    pool._targets = (living.target,)
    await pool._refresh()
    assert await asyncio.wait_for(future, 5) == b"1234"
    await pool.close()
    await silent.stop()
    await living.stop()


async def test_a_slow_reader_does_not_make_the_pod_hoard_answers() -> None:
    pod = EnginePod(limits=StreamLimits(unanswered_items_max=64, unsent_bytes_max=1 << 20))
    pool = await pool_of(await pod.start())
    await pool.wait_ready()
    data = bytes(256 << 10)
    futures = [ask(pool, data)[0] for _ in range(60)]
    most = 0
    while not all(future.done() for future in futures):
        time.sleep(0.02)  # noqa: ASYNC251 - this loop is the reader: it stalls
        await asyncio.sleep(0)
        most = max(most, *(session.outgoing.cost for session in pod.stream._sessions))
    assert most < 8 << 20
    assert all(future.result() == data for future in futures)
    await pool.close()
    await pod.stop()


async def test_slow_receivers_do_not_block_the_event_loop() -> None:
    """All of them come in one frame, and each takes a millisecond to receive."""
    turns, turns_between = 0, []

    def receive(outcome: engine_pb2.Outcome | HeddleError) -> None:
        turns_between.append(turns)
        end = time.monotonic() + 0.001
        while time.monotonic() < end:
            pass

    held = Held()
    pod = EnginePod(held.submit)
    pool = await pool_of(await pod.start())
    await pool.wait_ready()
    for _ in range(100):
        pool.submit(submission(), float("inf"), receive)
    await eventually(lambda: len(held.items) == 100)
    held.answer_all()
    async with asyncio.timeout(5):
        while len(turns_between) < 100:
            turns += 1
            await asyncio.sleep(0)
    assert turns_between[-1] - turns_between[0] >= 20
    await pool.close()
    await pod.stop()


async def test_a_client_that_half_closes_still_gets_its_answers() -> None:
    import grpc

    from heddle.v1 import engine_pb2, engine_pb2_grpc

    held = Held()
    pod = EnginePod(held.submit)
    async with grpc.aio.insecure_channel(await pod.start()) as channel:
        call = engine_pb2_grpc.EngineServiceStub(channel).Infer()
        frame = engine_pb2.EngineServiceInferRequest(tokenizer_fingerprint="fingerprint")
        frame.items.add(id=7)
        await call.write(frame)
        await call.done_writing()
        await eventually(lambda: len(held.items) == 1)
        held.answer_all()
        outcomes = [outcome.id async for frame in call for outcome in frame.outcomes]
        assert outcomes == [7]
    await pod.stop()
