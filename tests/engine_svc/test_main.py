"""How many passes run at once, and on how many cores, by the settings of an engine pod; and when it ends."""

import asyncio
import os
import sys
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from engine_svc import __main__ as main
from engine_svc.__main__ import concurrency
from engine_svc.settings import EngineSettings


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "usable_cores", lambda: 16)
    monkeypatch.setattr(main, "has_nvidia_gpu", lambda: False)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("settings", "passes_and_cores"),
    [
        (EngineSettings(), (8, 16)),
        (EngineSettings(threads=2), (2, 2)),
        (EngineSettings(threads=1), (1, 1)),
        (EngineSettings(passes=3), (3, 16)),
        (EngineSettings(threads=2, passes=4), (2, 2)),
        (EngineSettings(backend="tensorrt_llm"), (1, 16)),
        (EngineSettings(backend="simulated"), (1, 16)),
        (EngineSettings(backend="simulated", threads=1, passes=2), (2, 2)),
    ],
)
def test_passes_never_have_less_than_a_core(settings: EngineSettings, passes_and_cores: tuple[int, int]) -> None:
    assert concurrency(settings) == passes_and_cores


@pytest.mark.usefixtures("cores")
def test_a_gpu_runs_one_pass_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "has_nvidia_gpu", lambda: True)
    assert concurrency(EngineSettings()) == (1, 16)


def test_a_pod_whose_lane_has_died_does_not_live_on(monkeypatch: pytest.MonkeyPatch) -> None:
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


def lane_of(*, is_loaded: bool, running_since: float | None) -> Any:
    lane = SimpleNamespace(loaded=Future[Any](), stopped=Future[None](), running_since=running_since)
    if is_loaded:
        lane.loaded.set_result(None)
    return lane


async def test_a_pod_ends_after_its_backend_is_closed() -> None:
    lane = lane_of(is_loaded=True, running_since=None)
    closing = asyncio.create_task(main.until_closed(lane))
    await asyncio.sleep(0.05)
    assert not closing.done()
    lane.stopped.set_result(None)
    await asyncio.wait_for(closing, 10)


@pytest.mark.parametrize(("is_loaded", "running_since"), [(False, None), (True, 1.0)])
async def test_a_pod_ends_without_a_backend_that_loads_or_computes(
    *, is_loaded: bool, running_since: float | None
) -> None:
    async with asyncio.timeout(main.CLOSE_S_MAX / 2):
        await main.until_closed(lane_of(is_loaded=is_loaded, running_since=running_since))


async def test_a_pod_ends_without_a_backend_that_does_not_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "CLOSE_S_MAX", 0.05)
    async with asyncio.timeout(10):
        await main.until_closed(lane_of(is_loaded=True, running_since=None))


def test_tensorrt_llm_reports_nothing_and_stays_in_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(sys, "argv", ["engine-svc", "--model", "some"])
    monkeypatch.setattr(main, "start_logging", lambda *_, **__: None)
    monkeypatch.setattr(main, "run", lambda _: None)
    main.main()
    assert environment["TRTLLM_NO_USAGE_STATS"] == environment["TLLM_WORKER_USE_SINGLE_PROCESS"] == "1"
