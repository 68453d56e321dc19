"""The spans of items: how they end, and what a retry looks like."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.pool import Pool
from heddle.rpc.traced_submit import trace_submit
from heddle.telemetry.tracing import Attributes, Span, Tracing
from heddle.v1 import engine_pb2
from tests.collector import Collector, running_collector
from tests.heddle.rpc.pods import EnginePod, Held, ask, echo, eventually, protocol, submission

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
RECORDED = f"00-{TRACE}-00f067aa0ba902b7-01"


class Weaving:
    def begin(self, item: engine_pb2.Submission) -> tuple[str, Attributes]:
        return "weave", {"threads": len(item.sequences.token_ids)}

    def end(self, span: Span, outcome: engine_pb2.Outcome) -> None:
        span.set({"results": len(outcome.results)})


@pytest_asyncio.fixture
async def tracing() -> AsyncIterator[tuple[Tracing, Collector]]:
    with running_collector() as collector:
        tracing = Tracing("loom", collector.url, 0)
        yield tracing, collector
        await tracing.close()


def recorded() -> engine_pb2.Submission:
    item = submission()
    item.context.traceparent = RECORDED
    return item


async def test_an_item_has_one_span_however_it_ends(tracing: tuple[Tracing, Collector]) -> None:
    ours, collector = tracing
    replies: list[Any] = []
    trace_submit(echo, ours, Weaving())(recorded(), 0, replies.append)
    held = Held()
    submit = trace_submit(held.submit, ours, Weaving())
    item = recorded()
    cancel = submit(item, 0, replies.append)
    cancel()
    held.answer_all()  # a cancelled item may be answered too
    submit(recorded(), 0, replies.append)
    [(_, _, reply)] = held.items.values()
    reply(HeddleError(ErrorKind.INTERNAL, "the loom broke"))
    assert (len(replies), held.cancelled) == (3, [0])
    assert item.context.traceparent[:36] == RECORDED[:36]
    await ours.close()
    errors = [span.attributes.get("error.type") for span in collector.spans]
    assert errors == [None, "cancelled", "internal"]
    assert [span.is_error for span in collector.spans] == [False, False, True]
    assert collector.spans[0].attributes == {"threads": 4, "results": 1}
    assert item.context.traceparent[36:52] == collector.spans[1].span_id


async def test_an_item_that_is_not_recorded_passes_untouched(tracing: tuple[Tracing, Collector]) -> None:
    ours, collector = tracing
    seen: list[Any] = []
    item = recorded()
    item.context.traceparent = f"{RECORDED[:-1]}0"
    trace_submit(lambda *given: seen.append(given), ours, Weaving())(item, 7, seen.append)  # type: ignore[arg-type]
    assert seen == [(item, 7, seen.append)]
    assert item.context.traceparent == f"{RECORDED[:-1]}0"
    await ours.close()
    assert not collector.spans


async def test_a_retry_on_another_pod_is_seen_in_the_span_of_the_call(tracing: tuple[Tracing, Collector]) -> None:
    ours, collector = tracing
    held = Held()
    dying, living = EnginePod(held.submit), EnginePod()
    pool = Pool((await dying.start(),), protocol(), tracing=ours)
    await pool.start()
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    pool.submit(recorded(), float("inf"), answered.set_result)
    await eventually(lambda: bool(held.items))
    pool._targets = (await living.start(),)
    await pool._refresh()
    await dying.stop()
    await asyncio.wait_for(answered, 10)
    await asyncio.wait_for(ask(pool, b"1234")[0], 10)  # without a trace
    await pool.close()
    await living.stop()
    await ours.close()
    (call,) = collector.spans
    assert (call.name, call.kind, call.trace_id) == ("heddle.v1.EngineService/Infer", "client", TRACE)
    targets = [attributes["server.address"] for _, attributes in call.events]
    assert [name for name, _ in call.events] == ["sent", "lost", "sent"]
    assert targets == [dying.target, dying.target, living.target]
    assert (call.attributes["server.address"], call.is_error) == (living.target, False)


async def test_a_hedge_is_seen_in_the_span_of_the_call(tracing: tuple[Tracing, Collector]) -> None:
    ours, collector = tracing
    held, other = EnginePod(Held().submit), EnginePod()
    pool = Pool((await held.start(), await other.start()), protocol(), tracing=ours)
    await pool.start()
    await eventually(lambda: len(pool._available) == 2)
    pool.hedging.latencies.record(1, 0.001)
    pool._available = [pool._pods[held.target]]
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    pool.submit(recorded(), float("inf"), answered.set_result)
    await asyncio.wait_for(answered, 10)
    await ours.close()
    (call,) = collector.spans
    assert [name for name, _ in call.events] == ["sent", "hedged", "sent"]
    assert (call.attributes["server.address"], call.is_error) == (other.target, False)
    await pool.close()
    await held.stop()
    await other.stop()


async def test_a_call_that_is_cancelled_ends_its_span(tracing: tuple[Tracing, Collector]) -> None:
    ours, collector = tracing
    held = Held()
    pod = EnginePod(held.submit)
    pool = Pool((await pod.start(),), protocol(), tracing=ours)
    await pool.start()
    cancel = pool.submit(recorded(), float("inf"), lambda outcome: None)
    await eventually(lambda: bool(held.items))
    cancel()
    await ours.close()
    (call,) = collector.spans
    assert call.attributes["error.type"] == "cancelled"
    await pool.close()
    await pod.stop()
