"""A step that fails, hangs or dies is reported, and the other steps still run."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import running
from tests.gpu.record import SkippedError, Status
from tests.gpu.running import Settings, Step, Task, request_stop, run_all, run_one

DRY = Settings(is_dry=True)

# Python 3.12 warns of a fork while there are threads. The steps of these tests use no locks of other threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def _not_stopping() -> Iterator[None]:
    running.stopping.clear()
    yield
    running.stopping.clear()


def make_step(run: Callable[[Task], None], *, name: str = "step", is_vital: bool = False) -> Step:
    return Step(name, 30, "a test", run, is_vital=is_vital)


def work(task: Task) -> None:
    task.record.add(figure=1.5)


def raise_error(task: Task) -> None:
    task.record.add(figure=1.5)
    raise ValueError("no such shape")


def find_fault(task: Task) -> None:
    task.record.fail("a wrong number")
    task.record.add(figure=2.5)


def skip(task: Task) -> None:
    raise SkippedError("package x is not there")


def die(task: Task) -> None:
    task.record.add(figure=1.5)
    os._exit(3)


def hang(task: Task) -> None:
    task.record.add(figure=1.5)
    time.sleep(60)


def interrupt_the_run(task: Task) -> None:
    task.record.add(figure=1.5)
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)


def read_results(folder: Path, name: str = "step") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return content


def test_a_step_that_is_done_is_ok(tmp_path: Path) -> None:
    assert run_one(make_step(work), tmp_path, 30, DRY).status is Status.OK
    assert read_results(tmp_path)["rows"] == [{"figure": 1.5}]


def test_an_error_is_recorded_beside_the_rows_before_it(tmp_path: Path) -> None:
    assert run_one(make_step(raise_error), tmp_path, 30, DRY).status is Status.FAILED
    assert read_results(tmp_path)["failures"] == ["ValueError: no such shape"]
    assert read_results(tmp_path)["rows"] == [{"figure": 1.5}]


def test_a_failed_check_fails_the_step_and_does_not_end_it(tmp_path: Path) -> None:
    assert run_one(make_step(find_fault), tmp_path, 30, DRY).status is Status.FAILED
    assert read_results(tmp_path)["rows"] == [{"figure": 2.5}]


def test_a_step_without_what_it_needs_is_skipped(tmp_path: Path) -> None:
    outcome = run_one(make_step(skip), tmp_path, 30, DRY)
    assert outcome.status is Status.SKIPPED
    assert not outcome.is_bad
    assert read_results(tmp_path)["notes"] == ["skipped: package x is not there"]


def test_a_part_that_fails_leaves_the_others(tmp_path: Path) -> None:
    def work_in_parts(task: Task) -> None:
        task.attempt("first", lambda: raise_error(task))
        task.attempt("second", lambda: work(task))

    assert run_one(make_step(work_in_parts), tmp_path, 30, DRY).status is Status.FAILED
    assert read_results(tmp_path)["failures"] == ["first: ValueError: no such shape"]
    assert read_results(tmp_path)["rows"] == [{"figure": 1.5}, {"figure": 1.5}]


def test_a_process_that_dies_is_reported(tmp_path: Path) -> None:
    assert run_one(make_step(die), tmp_path, 30, DRY).status is Status.CRASHED
    assert read_results(tmp_path)["failures"] == ["its process ended with exit code 3"]
    assert read_results(tmp_path)["rows"] == [{"figure": 1.5}]


def test_a_step_is_cut_off_at_its_limit_and_keeps_what_it_found(tmp_path: Path) -> None:
    start = time.monotonic()
    assert run_one(make_step(hang), tmp_path, 1, DRY).status is Status.CUT_OFF
    assert time.monotonic() - start < 20
    assert read_results(tmp_path)["rows"] == [{"figure": 1.5}]


def test_the_other_steps_run_when_one_fails(tmp_path: Path) -> None:
    steps = [make_step(die, name="first"), make_step(raise_error, name="second"), make_step(work, name="third")]
    outcomes = run_all(steps, tmp_path, 300, DRY)
    assert [outcome.status for outcome in outcomes] == [Status.CRASHED, Status.FAILED, Status.OK]


def test_nothing_runs_after_a_vital_step_that_failed(tmp_path: Path) -> None:
    steps = [make_step(raise_error, name="first", is_vital=True), make_step(work, name="second")]
    assert [outcome.status for outcome in run_all(steps, tmp_path, 300, DRY)] == [
        Status.FAILED,
        Status.NOT_RUN,
    ]
    assert read_results(tmp_path, "second")["failures"] == ["first failed"]


def test_steps_for_which_no_time_is_left_are_not_run(tmp_path: Path) -> None:
    [outcome] = run_all([make_step(work)], tmp_path, 1, DRY)
    assert outcome.status is Status.NOT_RUN
    assert outcome.is_bad


def test_a_signal_cuts_off_the_step_that_runs_and_those_after_it(tmp_path: Path) -> None:
    steps = [make_step(interrupt_the_run, name="first"), make_step(work, name="second")]
    usual = signal.signal(signal.SIGTERM, request_stop)
    try:
        outcomes = run_all(steps, tmp_path, 300, DRY)
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert [outcome.status for outcome in outcomes] == [Status.CUT_OFF, Status.NOT_RUN]
    assert read_results(tmp_path, "first")["rows"] == [{"figure": 1.5}]
