"""Imports and shutdown of an engine pod."""

import asyncio
import os
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine_svc import pod


async def test_a_simulated_pod_does_not_import_torch(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; from engine_svc.pod import serve; from engine_svc.settings import EngineSettings\n"
        "async def run():\n"
        "    stop = asyncio.Event(); asyncio.get_running_loop().call_later(1, stop.set)\n"
        "    await serve(EngineSettings(listen=('unix:' + sys.argv[1],), backend='simulated'), stop)\n"
        "asyncio.run(run()); assert 'torch' not in sys.modules"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(tmp_path / "socket")),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert await asyncio.wait_for(process.wait(), 30) == 0


def test_a_pod_ends_when_a_thread_of_its_worker_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(pod, "leave", left.append)
    for outcome in (None, MemoryError()):
        stopped: Future[None] = Future()
        stopped.add_done_callback(pod.leave_if_broken)
        if outcome is None:
            stopped.set_result(None)
        else:
            stopped.set_exception(outcome)
    assert left == [1]


def make_worker(*, is_loaded: bool, running_since: float | None) -> Any:
    worker = SimpleNamespace(loaded=Future[Any](), stopped=Future[None](), running_since=running_since)
    if is_loaded:
        worker.loaded.set_result(None)
    return worker


async def test_a_pod_ends_after_its_backend_is_closed() -> None:
    worker = make_worker(is_loaded=True, running_since=None)
    closing = asyncio.create_task(pod.wait_until_closed(worker))
    await asyncio.sleep(0.05)
    assert not closing.done()
    worker.stopped.set_result(None)
    await asyncio.wait_for(closing, 10)


@pytest.mark.parametrize(("is_loaded", "running_since"), [(False, None), (True, 1.0)])
async def test_a_pod_does_not_wait_for_a_backend_that_loads_or_computes(
    *, is_loaded: bool, running_since: float | None
) -> None:
    async with asyncio.timeout(pod.CLOSE_S_MAX / 2):
        await pod.wait_until_closed(make_worker(is_loaded=is_loaded, running_since=running_since))


async def test_a_pod_does_not_wait_forever_for_a_backend_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod, "CLOSE_S_MAX", 0.05)
    async with asyncio.timeout(10):
        await pod.wait_until_closed(make_worker(is_loaded=True, running_since=None))
