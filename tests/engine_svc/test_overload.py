"""Under overload, the scheduler refuses requests that would be late and drops late ones. The tests set the time."""

import time

import pytest

from engine_svc.batching import Batch, SchedulerLimits
from engine_svc.fair_queue import FairQueue
from engine_svc.scheduler import Scheduler
from engine_svc.submission import Submission
from heddle.admission import STALE_S
from tests.engine_svc.submissions import list_expired, list_submissions, several, single

LIMITS = SchedulerLimits(batch_tokens_max=100, batch_items_max=10, queue_tokens_max=10**6, queue_items_max=10**5)


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


def run_pass(scheduler: Scheduler, clock: Clock, seconds: float = 0.1) -> Batch:
    batch = scheduler.take(0)
    assert batch is not None
    clock.now += seconds
    scheduler.give_back(batch)
    return batch


def make_busy(clock: Clock, *, passes: int = 1, runs_in_turn: bool = False, waiting: int = 30) -> Scheduler:
    """A scheduler that has measured 1,000 tokens per second. `waiting` sequences of 10 tokens wait in its queue."""
    scheduler = Scheduler(LIMITS, passes=passes, cores=passes, runs_in_turn=runs_in_turn, queue_s_max=2.0)
    scheduler.submit(single(flow=f"caller/{number}") for number in range(30 + waiting))
    for _ in range(3):
        run_pass(scheduler, clock)
    return scheduler


def fill_up(scheduler: Scheduler, deadline: float | None = None, caller: str = "caller") -> list[Submission]:
    """Submits more and more sequences of 10 tokens, and returns the accepted ones."""
    submissions = [single(flow=f"{caller}/more{number}", deadline=deadline) for number in range(1000)]
    return [submission for submission in submissions if not scheduler.submit([submission])]


def test_everything_is_accepted_before_a_pass_has_ended(clock: Clock) -> None:
    scheduler = Scheduler(LIMITS, queue_s_max=2.0)
    assert len(fill_up(scheduler, clock.now + 0.5)) == 1000


def test_the_queue_accepts_what_can_be_computed_before_the_deadline(clock: Clock) -> None:
    scheduler = make_busy(clock)
    deadline = clock.now + 1.0
    accepted = fill_up(scheduler, deadline)
    assert 30 <= len(accepted) <= 70  # after the 30 that waited, 100 a second
    dropped, done = [], 0
    while scheduler.load().waiting_items:
        batch = run_pass(scheduler, clock)
        dropped += list_expired(batch)
        done += sum(submission in accepted for submission in list_submissions(batch))
        assert clock.now <= deadline
    assert not dropped
    assert done == len(accepted)


def test_without_deadlines_the_longest_wait_limits_the_queue(clock: Clock) -> None:
    scheduler = make_busy(clock, waiting=0)
    fill_up(scheduler)
    assert 180 <= scheduler.load().waiting_items <= 210


def test_concurrent_passes_multiply_the_throughput(clock: Clock) -> None:
    scheduler = make_busy(clock, passes=3, waiting=0)
    fill_up(scheduler)
    assert 540 <= scheduler.load().waiting_items <= 620


def test_passes_in_turn_do_not_multiply_the_throughput(clock: Clock) -> None:
    scheduler = make_busy(clock, passes=2, runs_in_turn=True, waiting=0)
    fill_up(scheduler)
    assert 180 <= scheduler.load().waiting_items <= 210


def test_the_throughput_is_forgotten_once_the_engine_is_idle(clock: Clock) -> None:
    scheduler = make_busy(clock, passes=3, waiting=0)
    assert scheduler.measure_throughput() == pytest.approx(3 * 1000)
    clock.now += STALE_S
    assert scheduler.measure_throughput() == 0


def test_a_refusal_says_when_the_work_ahead_will_be_done(clock: Clock) -> None:
    scheduler = make_busy(clock)
    fill_up(scheduler)
    [refused] = scheduler.submit([single(flow="caller/last")])
    assert refused.refusal is not None
    assert refused.refusal.retry_after_ms == pytest.approx(10 * scheduler.load().waiting_items, abs=100)


@pytest.mark.parametrize("left_s", [1.0, None])
def test_a_retry_after_the_advised_time_is_accepted(clock: Clock, left_s: float | None) -> None:
    """Holds if no other request comes in the meantime."""

    def retry() -> list[Submission]:
        return scheduler.submit([single(flow="caller/last", deadline=left_s and clock.now + left_s)])

    scheduler = make_busy(clock)
    fill_up(scheduler, left_s and clock.now + left_s)
    [refused] = retry()
    assert refused.refusal is not None
    clock_after = clock.now + refused.refusal.retry_after_ms / 1000
    while clock.now < clock_after and scheduler.load().waiting_items:
        run_pass(scheduler, clock)
    assert not retry()


def test_another_caller_is_accepted_during_the_overload_of_one(clock: Clock) -> None:
    scheduler = make_busy(clock)
    fill_up(scheduler)
    assert not scheduler.submit([single(flow="other/1", deadline=clock.now + 0.5)])


def test_a_higher_priority_is_accepted_and_a_lower_one_waits_for_it(clock: Clock) -> None:
    scheduler = make_busy(clock)
    submissions = [single(flow=f"caller/low{number}", priority=1) for number in range(1000)]
    assert len(scheduler.submit(submissions)) > 700
    assert not scheduler.submit([single(flow="caller/high", deadline=clock.now + 1.0)])
    assert scheduler.submit([single(flow="other/low", priority=1, deadline=clock.now + 0.3)])


def test_a_request_whose_first_part_was_accepted_is_not_refused_for_its_length(clock: Clock) -> None:
    scheduler = make_busy(clock, waiting=200)
    parts = [several([10] * 32, flow="bulk/1") for _ in range(64)]
    assert not scheduler.submit(parts)


def test_a_request_that_cannot_be_done_by_its_deadline_is_refused_with_an_early_part(clock: Clock) -> None:
    scheduler = make_busy(clock)
    parts = [several([10] * 32, flow="bulk/1", deadline=clock.now + 5.0) for _ in range(64)]
    assert len(scheduler.submit(parts)) > 40


def test_clients_that_wait_for_their_answers_are_served_however_slow_the_engine_is(clock: Clock) -> None:
    """Three callers with 64 connections each. The gateway gives each request 60 s."""
    scheduler = Scheduler(LIMITS, queue_s_max=5.0)
    last, ages = 0, list[float]()

    def send(connection: int) -> None:
        nonlocal last
        last += 1
        request = single(80, flow=f"{connection % 3}/{last}", deadline=clock.now + 60)
        connections[request] = connection
        assert not scheduler.submit([request])

    connections: dict[Submission, int] = {}
    for connection in range(3 * 64):
        send(connection)
    for _ in range(500):
        batch = run_pass(scheduler, clock, seconds=0.2)
        assert not batch.late
        for request in list_submissions(batch):
            ages.append(clock.now - request.submitted_at)
            send(connections[request])
    assert max(ages) > 30


def test_a_bulk_is_served_by_an_idle_engine_however_long_it_takes(clock: Clock) -> None:
    """2,048 texts of 80 tokens, in the gateway's 60 s. Single requests of others come in between."""
    scheduler = Scheduler(LIMITS, queue_s_max=5.0)
    deadline = clock.now + 60
    for _ in range(64):
        assert not scheduler.submit([several([80] * 32, flow="bulk/1", deadline=deadline)])
        clock.now += 0.1
        run_pass(scheduler, clock, seconds=0.02)
    done = 64
    while scheduler.load().waiting_items:
        if done % 100 == 0:
            assert not scheduler.submit([single(80, flow=f"other/{done}", deadline=clock.now + 1)])
        batch = run_pass(scheduler, clock, seconds=0.02)
        assert not batch.late
        done += batch.items
    assert done >= 2048


def make_batch(clock: Clock, *submissions: Submission) -> tuple[Batch, FairQueue]:
    """Returns an empty batch with an expected throughput of 1,000 tokens per second, and a queue."""
    queue = FairQueue(bulk_tokens=100)
    for submission in submissions:
        queue.put(submission)
    batch = Batch(clock.now, LIMITS)
    batch.expect(queue, 1000)
    return batch, queue


def test_a_pass_is_shortened_for_a_deadline(clock: Clock) -> None:
    hurried = single(deadline=clock.now + 0.05)
    batch, queue = make_batch(clock, hurried, *(single(flow=f"{number}") for number in range(20)))
    assert not batch.drop_if_late(hurried, queue)
    assert batch.limits.batch_tokens_max == 50


def test_a_submission_that_even_a_short_pass_would_finish_late_is_dropped(clock: Clock) -> None:
    hopeless = single(deadline=clock.now + 0.02)
    batch, queue = make_batch(clock, hopeless, *(single(flow=f"{number}") for number in range(20)))
    assert batch.drop_if_late(hopeless, queue)
    assert list_expired(batch) == [hopeless]
    assert batch.limits == LIMITS


def test_a_single_sequence_is_computed_although_its_pass_may_end_late(clock: Clock) -> None:
    scheduler = make_busy(clock, waiting=0)
    hurried = single(deadline=clock.now + 0.003)
    scheduler.submit([hurried])
    assert list_submissions(scheduler.take(0)) == [hurried]
