"""A pool of pods over real sockets: which pod gets an item, and what becomes of it when the pod drains or dies."""

import asyncio
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest

from heddle.rpc import refusals
from heddle.rpc.balancing import OTHERS_DIVISOR, estimate_load
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.pool import Pool, PoolLimits
from tests.heddle.rpc.pods import EnginePod, Held, ask, eventually, pool_of, protocol, submission


async def test_items_of_a_lost_pod_are_answered_by_another() -> None:
    held = Held()
    dying, living = EnginePod(held.submit), EnginePod()
    pool = await pool_of(await dying.start(), await living.start())
    await eventually(lambda: len(pool._available) == 2)
    futures = [ask(pool, number.to_bytes(4, "little"))[0] for number in range(200)]
    await eventually(lambda: len(held.items) >= 50)
    await dying.stop()
    answers = await asyncio.wait_for(asyncio.gather(*futures), 10)
    assert answers == [number.to_bytes(4, "little") for number in range(200)]
    await pool.close()
    await living.stop()


async def test_a_pod_that_comes_back_is_used_again(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/pod"
    changes: list[bool] = []
    first = EnginePod()
    pool = await pool_of(await first.start(address), on_change=changes.append)
    assert await asyncio.wait_for(ask(pool, b"1111")[0], 5) == b"1111"
    await first.stop()
    await eventually(lambda: not pool.ready)
    waiting, _ = ask(pool, b"2222")
    second = EnginePod()
    await second.start(address)
    assert await asyncio.wait_for(waiting, 10) == b"2222"
    assert changes == [True, False, True]
    await pool.close()
    await second.stop()


async def test_an_item_waits_its_full_time_for_a_pod_each_time(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/pod"
    held = Held()
    pool = await pool_of(address, limits=PoolLimits(no_pod_s_max=2))
    asked, _ = ask(pool, b"1234")
    first = EnginePod(held.submit)
    await first.start(address)
    await eventually(lambda: bool(held.items))
    await asyncio.sleep(1.5)
    await first.stop()
    await asyncio.sleep(1)  # longer ago than no_pod_s_max is only the first time without a pod
    second = EnginePod()
    await second.start(address)
    assert await asyncio.wait_for(asked, 5) == b"1234"
    await pool.close()
    await second.stop()


async def test_without_any_pod_items_fail_after_a_while_with_a_reason() -> None:
    pool = await pool_of("127.0.0.1:1", limits=PoolLimits(no_pod_s_max=0.1))
    with pytest.raises(HeddleError, match=r"127\.0\.0\.1:1") as raised:
        await asyncio.wait_for(ask(pool, b"1234")[0], 5)
    assert raised.value.kind is ErrorKind.UNAVAILABLE
    await pool.close()


async def test_items_wait_while_a_name_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[dict[str, str] | None] = [None]
    monkeypatch.setattr("heddle.rpc.pool.resolve", lambda targets: asyncio.sleep(0, found[0]))
    monkeypatch.setattr("heddle.rpc.pool.DNS_INTERVAL_S", 0.01)
    pool = await pool_of("dns:///pods:1")
    waiting, _ = ask(pool, b"1234")
    pod = EnginePod()
    found[0] = {await pod.start(): ""}
    assert await asyncio.wait_for(waiting, 5) == b"1234"
    await pool.close()
    await pod.stop()


async def test_a_busy_pod_whose_name_is_gone_for_a_while_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    held, changes = Held(), list[bool]()
    pod = EnginePod(held.submit)
    found = [{await pod.start(): ""}]
    monkeypatch.setattr("heddle.rpc.pool.resolve", lambda targets: asyncio.sleep(0, found[0]))
    monkeypatch.setattr("heddle.rpc.pool.DNS_INTERVAL_S", 0.01)
    pool = Pool(("dns:///pods:1",), protocol(), on_change=changes.append)
    await pool.start()
    busy, _ = ask(pool, b"1234")
    await eventually(lambda: bool(held.items))
    there, found[0] = found[0], {}
    await eventually(lambda: not pool.ready)
    found[0] = there
    await eventually(lambda: pool.ready)
    held.answer_all()
    assert await asyncio.wait_for(busy, 5) == b"1234"
    assert changes == [True, False, True]
    await pool.close()
    await pod.stop()


async def test_an_item_over_the_limit_is_refused_even_without_a_pod() -> None:
    pool = Pool(("127.0.0.1:1",), protocol(item_bytes_max=64))
    await pool.start()
    with pytest.raises(HeddleError) as raised:
        await asyncio.wait_for(ask(pool, bytes(65))[0], 1)
    assert raised.value.kind is ErrorKind.TOO_LARGE
    await pool.close()


async def test_without_another_cost_an_item_costs_its_bytes() -> None:
    held = Held()
    pod = EnginePod(held.submit)
    pool = Pool((await pod.start(),), replace(protocol(), cost_of=None))
    await pool.start()
    await pool.wait_ready()
    asked, cancel = ask(pool, bytes(1000))
    await eventually(lambda: bool(held.items))
    (load,) = (there.unanswered_cost for there in pool._available)
    assert load == submission(bytes(1000)).ByteSize()
    cancel()
    asked.cancel()
    await pool.close()
    await pod.stop()


async def test_each_item_is_answered_at_its_own_deadline_and_withdrawn_from_its_pod() -> None:
    held = Held()
    pod = EnginePod(held.submit)
    pool = await pool_of(await pod.start())
    await eventually(lambda: pool.ready)
    began = time.monotonic()
    later, soon, never = (ask(pool, b"1234", began + after_s)[0] for after_s in (0.4, 0.1, math.inf))
    for future, after_s in ((soon, 0.1), (later, 0.4)):
        with pytest.raises(HeddleError) as raised:
            await asyncio.wait_for(future, 5)
        assert raised.value.kind is ErrorKind.DEADLINE_EXCEEDED
        assert after_s <= time.monotonic() - began < after_s + 0.2
    await eventually(lambda: len(held.cancelled) == 2)
    assert not never.done()
    await pool.close()
    await pod.stop()


async def test_an_item_that_was_alone_on_two_pods_that_crashed_fails() -> None:
    held = Held()
    pods = [EnginePod(held.submit) for _ in range(2)]
    pool = await pool_of(*[await pod.start() for pod in pods])
    await eventually(lambda: len(pool._available) == 2)
    future, _ = ask(pool, b"1234")
    await eventually(lambda: len(held.items) == 1)
    served = [pod for pod in pods if not pod.stream.idle]
    await served[0].stop()
    other = next(pod for pod in pods if pod is not served[0])
    await eventually(lambda: not other.stream.idle)
    await other.stop()
    with pytest.raises(HeddleError) as raised:
        await asyncio.wait_for(future, 5)
    assert raised.value.kind is ErrorKind.INTERNAL
    await pool.close()


async def test_a_draining_pod_gets_nothing_new_and_answers_what_it_has() -> None:
    held = Held()
    leaving, staying = EnginePod(held.submit), EnginePod()
    pool = await pool_of(await leaving.start(), await staying.start())
    await eventually(lambda: len(pool._available) == 2)
    futures = [ask(pool, b"1234")[0] for _ in range(50)]
    await eventually(lambda: len(held.items) >= 10)
    await leaving.stream.announce_draining()
    await eventually(lambda: len(pool._available) == 1)
    before = len(held.items)
    later = [ask(pool, b"5678")[0] for _ in range(50)]
    assert await asyncio.wait_for(asyncio.gather(*later), 5) == [b"5678"] * 50
    assert len(held.items) == before
    held.answer_all()
    assert await asyncio.wait_for(asyncio.gather(*futures), 5) == [b"1234"] * 50
    await eventually(lambda: leaving.stream.idle)
    await pool.close()
    await leaving.stop()
    await staying.stop()


async def test_a_stream_to_a_draining_pod_ends_once_its_items_are_answered() -> None:
    """It need not wait for the items of others: a proxy may lead to another pod."""
    held = Held()
    pod = EnginePod(held.submit)
    pool, others = await pool_of(await pod.start()), await pool_of(pod.target)
    await pool.wait_ready()
    await others.wait_ready()
    theirs, _ = ask(others, b"1234")
    await eventually(lambda: len(held.items) == 1)
    await pod.stream.announce_draining()
    await eventually(lambda: len(pod.stream._sessions) == 1 and not pool.ready)
    pod.stream.draining = False
    await eventually(lambda: pool.ready)
    assert not others.ready
    held.answer_all()
    assert await asyncio.wait_for(theirs, 5) == b"1234"
    assert pool.counts.lost_pods == others.counts.lost_pods == 0
    await pool.close()
    await others.close()
    await pod.stop()


async def test_load_is_spread_over_pods_by_cost() -> None:
    pods = [EnginePod(Held().submit) for _ in range(4)]
    pool = await pool_of(*[await pod.start() for pod in pods])
    await eventually(lambda: len(pool._available) == 4)
    for number in range(400):
        ask(pool, bytes(4 * (1 + number % 50)))
    loads = [pod.unanswered_cost for pod in pool._pods.values()]
    assert max(loads) <= 1.1 * min(loads)
    await pool.close()
    for pod in pods:
        await pod.stop()


async def test_a_pool_quotes_why_its_pods_refuse() -> None:
    pod = EnginePod()
    target = await pod.start()
    pod.interceptor.ready = False
    pool = await pool_of(target)
    await eventually(lambda: pool.refusal().message == f"no pod can be reached at {target}: the server is starting")
    await pool.close()
    await pod.stop()


async def test_an_unreachable_pod_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(refusals, "AWAY_S", 0.1)
    pool = await pool_of("127.0.0.1:1")
    await eventually(lambda: bool(caplog.records))
    await asyncio.sleep(0.5)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("no stream to 127.0.0.1:1: ")
    await pool.close()


async def test_a_pod_whose_connection_breaks_is_logged_once_and_when_it_is_back(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO")
    address = f"unix:{tmp_path}/pod"
    pod = EnginePod()
    pool = await pool_of(await pod.start(address))
    await eventually(lambda: pool.ready)
    await pod.stop()
    await eventually(lambda: not pool.ready)
    await asyncio.sleep(0.3)
    back = EnginePod()
    await back.start(address)
    await eventually(lambda: pool.ready)
    told = [(record.levelname, record.getMessage()) for record in caplog.records if address in record.getMessage()]
    assert told == [("WARNING", f"lost {address}"), ("INFO", f"{address} is back")]
    await pool.close()
    await back.stop()


def test_own_items_count_in_full_and_those_of_others_as_a_hint() -> None:
    assert estimate_load(unanswered=100, reported=100 + OTHERS_DIVISOR) == 101


def test_report_that_is_older_than_what_was_sent_takes_nothing_away() -> None:
    assert estimate_load(unanswered=100, reported=20) == 100
