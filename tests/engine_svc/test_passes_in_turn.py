"""Passes in turn, as on a GPU: when the next is formed, and how the time of each is measured."""

import asyncio
import threading
import time
from collections.abc import Mapping

import pytest

from engine_svc.batching import SchedulerLimits
from engine_svc.rows import Rows
from engine_svc.scheduler import QUEUED_PASS_SHARE_MIN, Scheduler
from engine_svc.sequences import Output, PackedBatch
from tests.engine_svc.submissions import list_submissions, single
from tests.engine_svc.workers import Recording, Running

LIMITS = SchedulerLimits(batch_tokens_max=400, batch_items_max=80, queue_tokens_max=10**6, queue_items_max=10**5)
TOKENS_MIN = int(QUEUED_PASS_SHARE_MIN * LIMITS.batch_tokens_max)
ITEMS_MIN = int(QUEUED_PASS_SHARE_MIN * LIMITS.batch_items_max)


def on_a_device(passes: int = 2) -> Scheduler:
    return Scheduler(LIMITS, passes=passes, cores=1, runs_in_turn=True)


@pytest.mark.parametrize("waiting", [[TOKENS_MIN], [1] * ITEMS_MIN])
def test_the_next_pass_is_formed_during_a_running_one_once_enough_waits(waiting: list[int]) -> None:
    scheduler = on_a_device()
    scheduler.submit([single(1)])
    assert scheduler.take(0) is not None
    submissions = [single(tokens) for tokens in waiting]
    scheduler.submit(submissions[:-1])
    assert scheduler.take(0) is None
    scheduler.submit(submissions[-1:])
    assert list_submissions(scheduler.take(0)) == submissions


def test_a_batch_without_work_does_not_change_the_measured_time_of_the_running_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    scheduler = on_a_device()
    scheduler.submit(single(100) for _ in range(4))
    scheduler.submit(single(100, deadline=now + 0.5) for _ in range(4))
    running = scheduler.take(0)
    now += 1.0
    empty = scheduler.take(0)
    assert running is not None
    assert empty is not None
    assert not empty.parts
    scheduler.give_back(empty)
    now += 1.0
    scheduler.give_back(running)
    assert scheduler._admission.throughput.per_s == 200


def test_less_than_that_is_taken_when_the_device_is_free() -> None:
    scheduler = on_a_device()
    scheduler.submit([single(1)])
    running = scheduler.take(0)
    assert running is not None
    waiting = [single(1), single(1)]
    for each in waiting:
        scheduler.submit([each])
        assert scheduler.take(0) is None
    scheduler.give_back(running)
    assert list_submissions(scheduler.take(0)) == waiting


def test_a_pass_takes_all_that_waits_and_leaves_no_share_to_another() -> None:
    scheduler = on_a_device()
    scheduler.submit(single(50) for _ in range(12))
    taken = [scheduler.take(0), scheduler.take(0)]
    assert [len(list_submissions(batch)) for batch in taken] == [8, 4]


def test_no_more_passes_are_in_flight_than_allowed() -> None:
    scheduler = on_a_device()
    scheduler.submit(single(400) for _ in range(4))
    first = scheduler.take(0)
    assert first is not None
    assert scheduler.take(0) is not None
    assert scheduler.take(0) is None
    scheduler.give_back(first)
    assert scheduler.take(0) is not None


def test_a_closed_scheduler_hands_out_what_waits_behind_a_running_pass() -> None:
    scheduler, taken = on_a_device(), []
    scheduler.submit([single(1)])
    running = scheduler.take(0)
    assert running is not None
    last = single(1)
    scheduler.submit([last])
    thread = threading.Thread(target=lambda: taken.append(scheduler.take(5)), daemon=True)
    thread.start()
    scheduler.close()
    scheduler.give_back(running)
    thread.join(5)
    assert list_submissions(taken[0]) == [last]


class Device(Recording):
    """Runs one pass after the other, each for PASS_S; the host packs at no cost."""

    PASS_S = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.busy = threading.Lock()

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        with self.busy:
            time.sleep(self.PASS_S)
            return super().run(batch)


async def test_compute_time_excludes_the_wait_for_the_previous_pass() -> None:
    running = Running(Device, limits=LIMITS, passes=2, runs_in_turn=True)
    await asyncio.wrap_future(running.worker.loaded)
    running.scheduler.submit([running.single(number) for number in range(4 * LIMITS.batch_items_max)])
    await running.until(4 * LIMITS.batch_items_max)
    seconds = sorted(outcome.compute_s for outcome in running.outcomes.values())
    assert seconds[0] > Device.PASS_S * 0.8
    # A machine that is busy with something else adds to some of them; each wait would add to three of four.
    assert seconds[len(seconds) // 2] < Device.PASS_S * 1.7
    await running.end()
