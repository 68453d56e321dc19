"""Processes share the items of a step. The results of each are kept, and one that dies does not affect the others."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.gpu import workers
from tests.gpu.record import Record
from tests.gpu.running import Settings, Task
from tests.gpu.workers import share

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture(params=[1, 3], ids=["one process", "three processes"], autouse=True)
def _processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "count_processes", lambda _: request.param)


def task_in(folder: Path, seconds: float = 60) -> Task:
    return Task(Record(folder, "step", time.monotonic() + seconds), Settings(is_dry=True))


def find(number: int, task: Task) -> None:
    task.record.add(number=number)
    if number == 2:
        task.record.fail("two")
    if number == 3:
        task.record.note("three")


def raise_error(_: Task) -> None:
    raise ValueError("no such shape")


def die(task: Task) -> None:
    os._exit(3)


def shared(task: Task, *works: Callable[[Task], None]) -> list[int]:
    share(task, [(f"item {index}", work) for index, work in enumerate(works)], seconds_kept=1)
    return sorted(row["number"] for row in task.record.rows)


def test_what_all_items_find_is_kept(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    assert shared(task, *(partial(find, number) for number in range(9))) == list(range(9))
    assert (task.record.failures, task.record.notes) == (["two"], ["three"])


def test_an_item_that_raises_or_dies_leaves_the_others(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    ends: list[Callable[[Task], None]] = [raise_error, die, die]
    assert shared(task, partial(find, 0), *ends, partial(find, 4), partial(find, 5)) == [0, 4, 5]
    assert sorted(task.record.failures) == [
        "item 1: ValueError: no such shape",
        "item 2: its process ended with exit code 3",
        "item 3: its process ended with exit code 3",
    ]


def test_a_process_that_cannot_use_its_device_any_more_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "is_usable", lambda _: False)
    processes: set[int] = set()

    def find_process(task: Task) -> None:
        task.record.add(number=os.getpid())

    processes.update(shared(task_in(tmp_path), *[find_process] * 4))
    assert len(processes) == 4


def test_no_item_starts_when_no_time_is_left(tmp_path: Path) -> None:
    task = task_in(tmp_path, seconds=0.5)
    assert shared(task, partial(find, 0), partial(find, 1)) == []
    assert task.record.notes == ["stopped before item 0, one of 2: no time left"]
