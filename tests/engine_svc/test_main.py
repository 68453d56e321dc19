"""How many passes run at once, and on how many cores, by the settings of an engine pod; and when it ends."""

import os
import sys
from concurrent.futures import Future

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


def test_tensorrt_llm_reports_nothing_and_stays_in_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(sys, "argv", ["engine-svc", "--model", "some"])
    monkeypatch.setattr(main, "start_logging", lambda *_, **__: None)
    monkeypatch.setattr(main, "run", lambda _: None)
    main.main()
    assert environment["TRTLLM_NO_USAGE_STATS"] == environment["TLLM_WORKER_USE_SINGLE_PROCESS"] == "1"
