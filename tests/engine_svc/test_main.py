"""What the process of an engine pod imports and sets, and when it ends."""

import asyncio
import os
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine_svc import __main__ as main


async def test_a_simulated_pod_does_not_import_torch(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; from engine_svc import __main__ as main; from engine_svc.settings import EngineSettings\n"
        "async def pod():\n"
        "    stop = asyncio.Event(); asyncio.get_running_loop().call_later(1, stop.set)\n"
        "    await main.serve(EngineSettings(listen=('unix:' + sys.argv[1],), backend='simulated'), stop)\n"
        "asyncio.run(pod()); assert 'torch' not in sys.modules"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(tmp_path / "socket")),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert await asyncio.wait_for(process.wait(), 30) == 0


def test_a_pod_ends_when_a_thread_of_its_worker_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(main, "leave", left.append)
    for outcome in (None, MemoryError()):
        stopped: Future[None] = Future()
        stopped.add_done_callback(main.leave_if_broken)
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
    closing = asyncio.create_task(main.wait_until_closed(worker))
    await asyncio.sleep(0.05)
    assert not closing.done()
    worker.stopped.set_result(None)
    await asyncio.wait_for(closing, 10)


@pytest.mark.parametrize(("is_loaded", "running_since"), [(False, None), (True, 1.0)])
async def test_a_pod_does_not_wait_for_a_backend_that_loads_or_computes(
    *, is_loaded: bool, running_since: float | None
) -> None:
    async with asyncio.timeout(main.CLOSE_S_MAX / 2):
        await main.wait_until_closed(make_worker(is_loaded=is_loaded, running_since=running_since))


async def test_a_pod_does_not_wait_forever_for_a_backend_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "CLOSE_S_MAX", 0.05)
    async with asyncio.timeout(10):
        await main.wait_until_closed(make_worker(is_loaded=True, running_since=None))


def test_tensorrt_llm_sends_no_usage_report_and_stays_in_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(sys, "argv", ["engine-svc", "--model", "some"])
    monkeypatch.setattr(main, "start_logging", lambda *_, **__: None)
    monkeypatch.setattr(main, "run", lambda _: None)
    main.main()
    assert environment["TRTLLM_NO_USAGE_STATS"] == environment["TLLM_WORKER_USE_SINGLE_PROCESS"] == "1"
