"""The metrics that every service has."""

import asyncio
import gc
import time

import pytest

from heddle.telemetry import process_metrics
from heddle.telemetry.metrics import Metrics
from heddle.telemetry.process_metrics import ProcessMetrics


async def test_a_blocked_event_loop_and_garbage_collection_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_metrics, "LAG_INTERVAL_S", 0.01)
    process = ProcessMetrics("engine", lambda: {"model": "m", "device": "cuda"})
    with process.measure():
        await asyncio.sleep(0.05)
        time.sleep(0.12)  # noqa: ASYNC251 - the loop is late by this
        await asyncio.sleep(0.05)
        gc.collect()
    assert process._on_gc not in gc.callbacks
    text = Metrics(process.collect).expose()[0].decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("heddle"))
    late = float(values['heddle_process_event_loop_lag_seconds_bucket{le="+Inf"}'])
    assert late - float(values['heddle_process_event_loop_lag_seconds_bucket{le="0.1"}']) >= 1
    assert float(values["heddle_process_gc_seconds_total"]) > 0
    (info,) = [name for name in values if name.startswith("heddle_build_info")]
    assert 'device="cuda"' in info
    assert 'model="m",service="engine",version="' in info
