"""Passes of a worker that run side by side, each in a thread of its own."""

import asyncio
import os
import sys

import pytest

from engine_svc.batching import SchedulerLimits
from engine_svc.submission import Submission
from engine_svc.worker import NICENESS
from tests.engine_svc.submissions import sequence
from tests.engine_svc.workers import Recording, Running
from tests.sequences import columns


async def test_passes_run_at_once_and_each_takes_what_came_in_the_meantime() -> None:
    backend = Recording()
    running = Running(lambda: backend, passes=2)
    await asyncio.wrap_future(running.worker.loaded)
    backend.gate.clear()
    for number in range(2):
        running.scheduler.submit([running.single(number)])
        async with asyncio.timeout(5):
            while running.worker.running_tokens < 2 * (number + 1):
                await asyncio.sleep(0.002)
    running.scheduler.submit([running.single(number) for number in range(2, 6)])
    backend.gate.set()
    await running.until(6)
    assert sorted(backend.sizes) == [1, 1, 4]
    assert running.worker.running_since is None
    await running.end()
    assert backend.closed


@pytest.mark.skipif(sys.platform != "linux", reason="only there a thread has a niceness of its own")
async def test_a_query_among_bulks_goes_by_express_with_a_higher_thread_priority() -> None:
    backend = Recording()
    limits = SchedulerLimits(batch_tokens_max=8, batch_items_max=8, queue_tokens_max=10**6, queue_items_max=10**6)
    running = Running(lambda: backend, limits=limits, has_express=True)
    await asyncio.wrap_future(running.worker.loaded)
    backend.gate.clear()
    running.scheduler.submit([running.single(number, sequence(2, content=number)) for number in range(12)])
    async with asyncio.timeout(5):
        while not running.worker.running_tokens:
            await asyncio.sleep(0.002)
    running.scheduler.submit([Submission(columns(sequence(1)), "query", lambda outcome: None, 0, None)])
    async with asyncio.timeout(5):
        while running.worker.running_tokens < 9:
            await asyncio.sleep(0.002)
    backend.gate.set()
    await running.until(12)
    assert backend.niceness[4] == backend.niceness[1] + NICENESS
    await running.end()


async def test_passes_run_where_the_thread_priority_must_not_be_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refused)
    running = Running(Recording, has_express=True)
    running.scheduler.submit([running.single(0)])
    await running.until(1)
    await running.end()
