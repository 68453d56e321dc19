"""Threads share the parts of a build, and all stop after an error."""

import signal
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from engine_svc.build.side_by_side import run_side_by_side


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    """Sets a number of threads that no worker uses."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    found = torch.get_num_threads()
    torch.set_num_threads(before)
    assert found == 3


def test_each_part_is_done_once_by_workers_with_one_core_each() -> None:
    done: list[tuple[int, int]] = []
    both = threading.Barrier(2)

    def work(part: int) -> None:
        if part < 2:
            both.wait(10)  # makes at least two threads take parts
        done.append((part, torch.get_num_threads()))

    run_side_by_side([work, work], range(50))
    assert sorted(done) == [(part, 1) for part in range(50)]


def test_an_error_of_one_worker_stops_all() -> None:
    started: list[int] = []
    failed = threading.Event()

    def fail(part: int) -> None:
        started.append(part)
        failed.set()
        raise ValueError("broken")

    def go_on(part: int) -> None:
        started.append(part)
        failed.wait(10)

    with pytest.raises(ValueError, match="broken"):
        run_side_by_side([fail, go_on], range(100_000))
    assert len(started) < 100_000


def test_ctrl_c_stops_after_the_current_parts() -> None:
    done: list[int] = []
    main = threading.get_ident()

    def work(part: int) -> None:
        if part == 1:
            time.sleep(0.1)  # lets all threads start
            signal.pthread_kill(main, signal.SIGINT)
            interrupted.wait(10)
        done.append(part)

    interrupted = threading.Event()

    def interrupt(number: int, frame: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_side_by_side([work], range(1_000_000))
    finally:
        signal.signal(signal.SIGINT, before)
    assert 2 <= len(done) < 1_000_000
