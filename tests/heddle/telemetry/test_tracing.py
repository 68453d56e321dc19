"""The choice of recorded requests, and the export of their spans to a collector."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.settings import ConfigurationError
from heddle.telemetry.span_exporter import Exporter
from heddle.telemetry.traceparent import TRACEPARENT, is_recorded, trace_id
from heddle.telemetry.tracing import Tracing, start_tracing
from heddle.v1 import item_pb2
from tests.collector import running_collector

NOWHERE = "http://127.0.0.1:1"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
RECORDED, UNRECORDED = (f"00-{TRACE}-00f067aa0ba902b7-{flags}" for flags in ("01", "00"))


@asynccontextmanager
async def tracing_of(ratio: float, collector: str = NOWHERE) -> AsyncIterator[Tracing]:
    tracing = Tracing("loom", collector, ratio)
    try:
        yield tracing
    finally:
        await tracing.close()


def sampled(tracing: Tracing, stated: str, *, trusts_flag: bool = True) -> tuple[bool, item_pb2.ItemContext]:
    context = item_pb2.ItemContext(traceparent=stated, tracestate="a=1")
    return tracing.sample(context, trusts_flag=trusts_flag), context


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_the_flag_of_a_caller_decides_if_it_is_trusted(ratio: float) -> None:
    async with tracing_of(ratio) as tracing:
        for stated, recorded in ((RECORDED, True), (UNRECORDED, False)):
            context = item_pb2.ItemContext(traceparent=stated, tracestate="a=1")
            assert sampled(tracing, stated) == (recorded, context)
            decided, context = sampled(tracing, stated, trusts_flag=False)
            assert decided == (ratio == 1)
            assert context.traceparent == (RECORDED if ratio else UNRECORDED)


@pytest.mark.parametrize("stated", ["", "nonsense", RECORDED.upper()])
async def test_a_request_without_a_valid_context_is_sampled_once(stated: str) -> None:
    async with tracing_of(1) as tracing, tracing_of(0) as never:
        assert sampled(tracing, stated) == (True, item_pb2.ItemContext())
        decided, context = sampled(never, stated)
        assert not decided
        assert TRACEPARENT.fullmatch(context.traceparent)
        assert not is_recorded(context.traceparent)
        assert not sampled(tracing, context.traceparent)[0]  # the next hop follows


async def test_the_ratio_is_the_share_of_requests_that_are_recorded() -> None:
    async with tracing_of(0.25) as tracing:
        recorded = sum(sampled(tracing, "")[0] for _ in range(4000))
    assert 800 < recorded < 1200  # 7 standard deviations


async def test_the_last_spans_are_sent_on_close() -> None:
    with running_collector() as collector:
        async with tracing_of(1, collector.url) as tracing:
            span = tracing.start("weave", "SERVER", RECORDED, {"threads": 7}, tracestate="a=1")
            span.end(HeddleError(ErrorKind.OVERLOADED, "SECRET"), is_server=True)
            span.end()
            span.set({"late": 1})
            span.add_event("late", {})
        (got,) = collector.spans
    assert (got.service, got.name, got.kind, got.trace_id) == ("loom", "weave", "server", TRACE)
    assert got.attributes == {"threads": 7, "error.type": "overloaded"}
    assert (got.state, got.is_error, got.message, got.events) == ("a=1", True, "OVERLOADED", [])
    assert trace_id(span.traceparent) == TRACE
    assert b"SECRET" not in b"".join(collector.raw)


async def test_an_unreachable_collector_is_logged_once_and_so_is_its_return(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    caplog.set_level(logging.INFO)

    def said() -> list[tuple[str, str]]:
        return [(record.levelname, record.getMessage().split(":")[0]) for record in caplog.records]

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with tracing_of(1, f"http://127.0.0.1:{port}") as tracing:
        await record_spans(tracing, lambda: bool(said()))
        more = iter(range(50))
        await record_spans(tracing, lambda: next(more, None) is None)
        lost = [("WARNING", "traces are lost until http")]
        assert said() == lost
        assert "StatusCode.UNAVAILABLE" in caplog.text
        with running_collector(port) as collector:
            await record_spans(tracing, lambda: len(said()) > 1)
            assert collector.spans
            assert said()[:2] == [*lost, ("INFO", "http")]


def test_a_header_that_cannot_be_parsed_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization Bearer secret")
    Exporter("http://127.0.0.1:1").shutdown()
    assert "Header format invalid" in caplog.text
    assert "secret" not in caplog.text


async def test_dropped_spans_are_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    with running_collector() as collector:
        async with tracing_of(1, collector.url) as tracing:
            for _ in range(100):
                tracing.start("weave", "SERVER", RECORDED, {}).end()
    (warning,) = caplog.messages
    dropped = int(warning.removesuffix(" spans were dropped: lower trace_ratio"))
    assert 0 < dropped <= 100 - len(collector.spans)


async def record_spans(tracing: Tracing, until: Callable[[], bool]) -> None:
    """Records spans until the condition holds."""
    async with asyncio.timeout(10):
        while not until():
            tracing.start("weave", "SERVER", RECORDED, {}).end()
            await asyncio.sleep(0.005)


def test_no_collector_means_no_tracing() -> None:
    assert start_tracing("loom", "", 1) is None


def test_an_invalid_variable_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "zip")
    with pytest.raises(ConfigurationError, match=r'cannot send traces to http://127\.0\.0\.1:1: Invalid value "zip"'):
        Tracing("loom", NOWHERE, 1)
