"""When a pod counts as slow, what is then sent to another one, and what that may cost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from heddle.rpc.deadlines import NEVER
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.hedging import BURST_ITEMS, LATE_FACTOR, LATE_S_MIN, RUNNING_MS_MAX, Budget, Latencies
from heddle.rpc.pending import Group, Pending
from heddle.rpc.pool import Pool, PoolLimits
from heddle.rpc.stream import BUSY_HEARTBEAT_S, HEARTBEAT_S, Cancel, Reply, nothing_to_cancel
from heddle.v1 import engine_pb2
from tests.heddle.rpc.pods import Engine, EnginePod, Held, ask, echo, eventually, protocol, read_pool, submission

ITEM, COST = b"1234", 1


def refuse(item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> Cancel:
    reply(HeddleError(ErrorKind.OVERLOADED, "the queue is full", retry_after_ms=1000))
    return nothing_to_cancel


def pending() -> Pending[Any, Any]:
    return Pending(submission(ITEM), NEVER, lambda outcome: None, size=0, cost=COST)


@asynccontextmanager
async def pool_with(*submits: Engine, share: float = 0.05, relays: bool = False) -> AsyncIterator[Pool[Any, Any]]:
    """A pool that has seen answers within a millisecond."""
    pods = [EnginePod(submit) for submit in submits]
    targets = tuple([await pod.start() for pod in pods])
    pool = Pool(targets, replace(protocol(), relays=relays), limits=PoolLimits(hedge_share=share))
    await pool.start()
    await eventually(lambda: len(pool._available) == len(pods))
    pool.pod_answered(pending(), 0.001)
    yield pool
    await pool.close()
    for pod in pods:
        await pod.stop()


async def ask_until_held(pool: Pool[Any, Any], held: Held) -> "asyncio.Future[bytes]":
    """Returns the answer of the first item that the pod holds."""
    while True:
        answer, _ = ask(pool, ITEM)
        while not (held.items or answer.done()):
            await asyncio.sleep(0.001)
        if held.items:
            return answer


async def test_an_item_of_a_pod_that_answers_nothing_is_answered_by_another() -> None:
    held = Held()
    async with pool_with(held.submit, echo) as pool:
        answer = await ask_until_held(pool, held)
        assert await asyncio.wait_for(answer, 5) == ITEM
        scraped = read_pool(pool)
        assert scraped.value("heddle_rpc_hedged_items_total") == scraped.value("heddle_rpc_hedges_won_total") == 1
        assert scraped.value("heddle_rpc_slow_pods") == 1
        await eventually(lambda: bool(held.cancelled))
        assert not pool.unanswered


async def test_a_slow_pod_gets_nothing_new_until_it_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heddle.rpc.stream_session.HEARTBEAT_S", 0.5)
    held = Held()
    async with pool_with(held.submit, echo) as pool:
        await asyncio.wait_for(await ask_until_held(pool, held), 5)
        held.items.clear()
        answers = [ask(pool, ITEM)[0] for _ in range(20)]
        assert await asyncio.wait_for(asyncio.gather(*answers), 5) == [ITEM] * 20
        assert not held.items
        await ask_until_held(pool, held)  # its next heartbeat comes


async def test_nothing_is_hedged_without_a_share_or_while_all_pods_are_slow() -> None:
    held, other = Held(), Held()
    async with pool_with(held.submit, echo, share=0) as pool, pool_with(other.submit, other.submit) as slow:
        await ask_until_held(pool, held)
        for _ in range(10):
            ask(slow, ITEM)
        await asyncio.sleep(2 * LATE_S_MIN)
        assert not pool.counts.hedged
        assert not slow.counts.hedged
        assert all(pod.slow_at for pod in slow._pods.values())


async def test_the_late_answer_counts_if_it_comes_first() -> None:
    held = {number: Held() for number in range(2)}
    async with pool_with(held[0].submit, held[1].submit) as pool:
        answer, _ = ask(pool, ITEM)
        await eventually(lambda: all(one.items for one in held.values()))
        late = next(number for number, pod in enumerate(pool._pods.values()) if pod.slow_at)
        held[late].answer_all()
        assert await asyncio.wait_for(answer, 5) == ITEM
        await eventually(lambda: bool(held[1 - late].cancelled))
        assert (pool.counts.hedged, pool.counts.hedges_won, pool.unanswered) == (1, 0, 0)


async def test_a_refused_hedge_leaves_the_item_to_its_first_pod() -> None:
    held = Held()
    async with pool_with(held.submit, refuse) as pool:
        answer, _ = ask(pool, ITEM)  # moved there if the other pod gets it
        await eventually(lambda: bool(held.items))
        await eventually(lambda: pool.counts.hedged > 0)
        await asyncio.sleep(LATE_S_MIN / 2)
        held.answer_all()
        assert await asyncio.wait_for(answer, 5) == ITEM
        assert not pool.counts.hedges_won


async def test_a_hedged_item_can_be_cancelled_at_both_pods() -> None:
    held, other = Held(), Held()
    async with pool_with(held.submit, other.submit) as pool:
        answer, cancel = ask(pool, ITEM)
        await eventually(lambda: bool(held.items and other.items))
        cancel()
        await eventually(lambda: bool(held.cancelled and other.cancelled))
        assert not pool.unanswered
        assert not answer.done()


async def test_an_item_that_one_pod_refuses_for_its_full_queue_goes_to_another() -> None:
    async with pool_with(refuse, echo) as pool:
        answers = [await asyncio.wait_for(ask(pool, ITEM)[0], 5) for _ in range(20)]
        assert set(answers) == {ITEM}
        assert pool.counts.moved


async def test_an_item_that_two_pods_refuse_is_refused() -> None:
    async with pool_with(refuse, refuse, refuse) as pool:
        with pytest.raises(HeddleError) as raised:
            await asyncio.wait_for(ask(pool, ITEM)[0], 5)
        assert raised.value.kind is ErrorKind.OVERLOADED
        assert read_pool(pool).value("heddle_rpc_moved_items_total") == 1


async def test_what_is_late_or_refused_is_left_to_the_pool_of_pods_that_relay() -> None:
    held = Held()
    async with pool_with(held.submit, refuse, relays=True) as pool:
        answers = [ask(pool, ITEM)[0] for _ in range(20)]
        await eventually(lambda: bool(held.items) and any(answer.done() for answer in answers))
        await asyncio.sleep(2 * LATE_S_MIN)
        assert (pool.counts.moved, pool.counts.hedged, len(held.items)) == (0, 0, pool.unanswered)
        held.answer_all()
        for answer in await asyncio.wait_for(asyncio.gather(*answers, return_exceptions=True), 5):
            assert answer == ITEM or isinstance(answer, HeddleError)


async def test_a_pod_whose_batch_hangs_gets_nothing_new() -> None:
    held = Held()
    async with pool_with(held.submit, held.submit) as pool:
        hanging, other = pool._pods.values()
        hanging.running_ms = RUNNING_MS_MAX + 1
        pool.hedging._check()
        assert pool._available == [other]
        hanging.running_ms = 0
        hanging.last_heard = hanging.slow_at + 1
        pool.hedging._check()
        assert pool._available == [hanging, other]


async def test_hedges_do_not_go_to_a_pod_that_may_crash() -> None:
    held = Held()
    async with pool_with(held.submit, echo) as pool:
        await ask_until_held(pool, held)
        (other,) = [pod for pod in pool._pods.values() if pod.idle]
        other.group = Group([pending()], print)
        pool.pod_changed()
        await eventually(lambda: any(pod.slow_at for pod in pool._pods.values()))
        await asyncio.sleep(LATE_S_MIN)
        assert not pool.counts.hedged


def test_many_busy_streams_beat_less_often() -> None:
    stream: Any = EnginePod().stream
    seconds = []
    for count in (1, 64, 640, 64_000):
        stream._sessions = range(count)
        seconds.append(stream.busy_heartbeat_s)
    assert seconds == [BUSY_HEARTBEAT_S, BUSY_HEARTBEAT_S, 10 * BUSY_HEARTBEAT_S, HEARTBEAT_S]


def test_estimates_follow_the_slowest_hundredth_of_each_size() -> None:
    latencies = Latencies()
    for number in range(20_000):
        latencies.record(8, 0.5 if number % 50 == 0 else 0.01)
        latencies.record(1000, 2.0)
    assert LATE_FACTOR * 0.35 < latencies.late_after(10) < LATE_FACTOR * 0.65
    assert LATE_FACTOR * 1.8 < latencies.late_after(1023) < LATE_FACTOR * 2.3
    assert latencies.late_after(5000) == float("inf")


def test_a_budget_is_a_share_of_the_work() -> None:
    budget = Budget(0.05)
    budget.earn(300, 3)
    assert budget.level == BURST_ITEMS * 100
    budget.spend(BURST_ITEMS * 200)
    for _ in range(100):
        budget.earn(1000, 10)
    assert budget.level == pytest.approx(-BURST_ITEMS * 100 + 100 * 1000 * 0.05)
