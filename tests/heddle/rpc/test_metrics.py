"""What the transport counts: the pods that a client has and loses, and the streams of a server."""

import time

import pytest

from heddle.rpc.errors import HeddleError
from heddle.rpc.metrics import collect_pools, collect_streams
from heddle.rpc.pool import PoolLimits
from heddle.telemetry.metrics import Metrics
from tests.heddle.rpc.pods import EnginePod, Held, ask, eventually, pool_of, serving
from tests.metrics import Scrape, parse


def read(metrics: Metrics) -> Scrape:
    return parse(metrics.expose()[0].decode())


async def test_lost_pods_retries_and_stranded_items_are_counted() -> None:
    held, pod, other = Held(), EnginePod(), EnginePod()
    pod.stream.submit = held.submit
    pool = await pool_of(await pod.start(), limits=PoolLimits(attempts_max=2))
    metrics = Metrics(lambda: collect_pools({"m": pool}))
    await pool.wait_ready()
    future, _ = ask(pool, b"abcd")
    expired, _ = ask(pool, b"efgh", time.monotonic() + 0.2)
    with pytest.raises(HeddleError):
        await expired
    await eventually(lambda: len(held.items) >= 1)
    scraped = read(metrics)
    assert scraped.value("heddle_rpc_pods", model="m", state="connected") == 1
    assert scraped.value("heddle_rpc_unanswered_items", model="m") == 1
    assert scraped.value("heddle_rpc_expired_items_total", model="m") == 1

    await pod.stop()
    await eventually(lambda: pool.stranded == 1)
    scraped = read(metrics)
    assert scraped.value("heddle_rpc_pods", state="connected") == 0
    assert scraped.value("heddle_rpc_pods", state="unreachable") == 1
    assert scraped.value("heddle_rpc_pods_lost_total") == 1
    assert scraped.value("heddle_rpc_retries_total") == 1
    assert scraped.value("heddle_rpc_abandoned_items_total") == 0
    assert scraped.value("heddle_rpc_stranded_items") == 1

    await other.start(pod.target)
    assert await future == b"abcd"
    assert read(metrics).value("heddle_rpc_unanswered_items") == 0
    await pool.close()
    await other.stop()


async def test_an_item_that_loses_every_pod_is_counted_as_abandoned() -> None:
    pod = EnginePod(Held().submit)
    pool = await pool_of(await pod.start(), limits=PoolLimits(attempts_max=1))
    await pool.wait_ready()
    future, _ = ask(pool, b"abcd")
    await eventually(lambda: not pod.stream.idle)
    await pod.stream.announce_draining()  # so that its end is no crash
    await eventually(lambda: pool.count_pods()["draining"] == 1)
    await pod.stop()
    with pytest.raises(HeddleError, match="lost 1 pods"):
        await future
    assert pool.counts.abandoned == 1
    await pool.close()


async def test_a_pod_that_drains_is_not_lost() -> None:
    held = Held()
    pod = EnginePod(held.submit)
    async with serving(pod) as server:
        pool = await pool_of(server.addresses[0])
        await pool.wait_ready()
        future, _ = ask(pool, b"abcd")
        await eventually(lambda: len(held.items) == 1)
        streams = read(Metrics(lambda: collect_streams(pod.stream)))
        assert streams.value("heddle_rpc_streams") == 1
        assert streams.value("heddle_rpc_stream_items") == 1
        await pod.stream.announce_draining()
        await eventually(lambda: pool.count_pods()["draining"] == 1)
        held.answer_all()
        assert await future == b"abcd"
    await eventually(lambda: pool.count_pods()["unreachable"] == 1)
    assert pool.counts.lost_pods == 0
    await pool.close()
