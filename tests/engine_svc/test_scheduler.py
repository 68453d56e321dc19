"""Examples of when the scheduler begins a pass, with how many cores, of express passes, full queues and cancelling."""

import time

import pytest

from engine_svc.batching import Batch, SchedulerLimits
from engine_svc.fair_queue import CLASSES_KEPT_MAX
from engine_svc.scheduler import (
    EXPRESS_TOKENS_MAX,
    PASS_TOKENS_MIN,
    TOKENS_PER_CORE_MIN,
    Load,
    Scheduler,
)
from engine_svc.submission import Submission
from tests.engine_svc.submissions import (
    ROOMY,
    list_expired,
    list_submissions,
    make_scheduler,
    single,
    take_all,
    take_next,
)


def test_a_single_batch_gets_all_cores_until_its_pass_ends() -> None:
    scheduler = Scheduler(ROOMY, passes=4, cores=6)
    scheduler.submit([single(96)])
    batch = scheduler.take()
    assert batch is not None
    assert batch.cores == 6
    scheduler.submit([single()])
    assert scheduler.take(0) is None
    scheduler.give_back(batch)
    assert scheduler.take() is not None


def test_passes_share_the_cores_when_more_waits_than_a_batch_holds() -> None:
    scheduler = Scheduler(ROOMY, passes=3, cores=7)
    scheduler.submit(single(50) for _ in range(12))
    taken = [scheduler.take() for _ in range(3)]
    assert [batch.cores for batch in taken if batch] == [2, 2, 3]
    assert scheduler.take(0) is None


@pytest.mark.parametrize(
    ("lengths", "passes"),
    [
        ([64] * 8, [(4, 1), (4, 1)]),
        ([PASS_TOKENS_MIN // 2] * 2, [(2, 2)]),
        ([2 * PASS_TOKENS_MIN], [(1, 2)]),
        ([PASS_TOKENS_MIN] * 3, [(1, 1), (2, 1)]),
    ],
)
def test_passes_share_one_batch_if_each_gets_enough(lengths: list[int], passes: list[tuple[int, int]]) -> None:
    """Sequences and cores of each pass, on two cores."""
    limits = SchedulerLimits(batch_tokens_max=512, batch_items_max=64, queue_tokens_max=10**6, queue_items_max=10**5)
    scheduler = Scheduler(limits, passes=2, cores=2)
    scheduler.submit(single(length) for length in lengths)
    taken = [scheduler.take() for _ in passes]
    assert [(len(list_submissions(batch)), batch.cores) for batch in taken if batch] == passes
    assert not scheduler.load().waiting_items


def test_a_small_pass_leaves_cores_to_the_next() -> None:
    scheduler = Scheduler(ROOMY, passes=4, cores=4)
    scheduler.submit([single(TOKENS_PER_CORE_MIN)])
    first = scheduler.take()
    scheduler.submit([single(96)])
    second = scheduler.take()
    assert first is not None
    assert second is not None
    assert (first.cores, second.cores) == (1, 3)


def make_scheduler_with_bulk(*submissions: Submission) -> Scheduler:
    """Its only pass is busy with a bulk flow, and more of that flow waits."""
    limits = SchedulerLimits(batch_tokens_max=500, batch_items_max=8, queue_tokens_max=10**6, queue_items_max=10**5)
    scheduler = Scheduler(limits)
    scheduler.submit(single(200, "bulk") for _ in range(10))
    assert len(list_submissions(scheduler.take())) == 2
    scheduler.submit(submissions)
    return scheduler


def test_short_sequences_go_by_express_while_a_bulk_has_all_passes() -> None:
    queries = [single(10, "one"), single(20, "two"), single(30, "two")]
    scheduler = make_scheduler_with_bulk(*queries)
    assert scheduler.take(0) is None
    assert list_submissions(scheduler.take_express(0)) == queries
    another = single(10, "three")
    scheduler.submit([another])
    assert list_submissions(scheduler.take_express(0)) == [another]


def test_a_free_pass_comes_before_the_express() -> None:
    scheduler = make_scheduler_with_bulk()
    scheduler.give_back(Batch(0.0, ROOMY))
    scheduler.submit([single(10, "one")])
    assert scheduler.take_express(0) is None
    assert len(list_submissions(scheduler.take(0))) == 3


def test_an_express_gives_no_pass_back() -> None:
    scheduler = make_scheduler_with_bulk(single(10, "one"))
    express = scheduler.take_express(0)
    assert express is not None
    scheduler.give_back(express)
    assert scheduler.take(0) is None


@pytest.mark.parametrize(
    "scheduler",
    [
        make_scheduler_with_bulk(),
        make_scheduler_with_bulk(single(EXPRESS_TOKENS_MAX + 1, "long")),
        make_scheduler_with_bulk(single(10, "less urgent", priority=1)),
    ],
)
def test_nothing_else_goes_by_express(scheduler: Scheduler) -> None:
    assert scheduler.take_express(0) is None


def test_without_a_bulk_there_is_no_express() -> None:
    scheduler = Scheduler(ROOMY)
    scheduler.submit([single(90, "one")])
    scheduler.take()
    scheduler.submit(single(90, str(flow)) for flow in range(10))
    assert scheduler.take_express(0) is None


def test_an_express_batch_keeps_the_limit_of_sequences() -> None:
    scheduler = make_scheduler_with_bulk(*(single(1, str(number)) for number in range(20)))
    assert len(list_submissions(scheduler.take_express(0))) == 8


def test_an_express_batch_has_its_own_budget_and_reports_expired_submissions() -> None:
    late = single(10, "one", deadline=time.monotonic())
    fits, too_much = single(EXPRESS_TOKENS_MAX - 5, "one"), single(10, "one")
    scheduler = make_scheduler_with_bulk(late, fits, too_much)
    express = scheduler.take_express(0)
    assert list_submissions(express) == [fits]
    assert express is not None
    assert list_expired(express) == [late]


def test_cancelling_frees_the_queue_at_once() -> None:
    scheduler = Scheduler(SchedulerLimits(100, 8, queue_tokens_max=20, queue_items_max=2))
    first, second, third = single(), single(), single()
    assert scheduler.submit([first, second, third]) == [third]
    assert scheduler.cancel(first)
    assert scheduler.submit([third]) == []
    assert list_submissions(take_next(scheduler)) == [second, third]


def test_cancelling_a_running_refused_or_cancelled_submission_has_no_effect() -> None:
    scheduler = Scheduler(SchedulerLimits(100, 1, queue_tokens_max=20, queue_items_max=2))
    running, cancelled, waiting, refused = single(), single(), single(), single()
    scheduler.submit([running])
    take_next(scheduler)
    assert scheduler.submit([cancelled, waiting, refused]) == [refused]
    assert scheduler.cancel(cancelled)
    assert not any(scheduler.cancel(gone) for gone in (running, cancelled, refused))
    assert scheduler.load() == Load(1, 10)


def test_a_full_queue_refuses_only_the_submissions_that_exceed_it() -> None:
    scheduler = Scheduler(SchedulerLimits(100, 8, queue_tokens_max=30, queue_items_max=3))
    fits, too_long, fits_too, one_too_many = single(10), single(21), single(1), single(1)
    assert scheduler.submit([fits, too_long, fits_too]) == [too_long]
    assert scheduler.submit([single(1), one_too_many]) == [one_too_many]


def test_sequence_longer_than_the_queue_is_accepted_when_nothing_waits() -> None:
    scheduler = Scheduler(SchedulerLimits(100, 8, queue_tokens_max=30, queue_items_max=3))
    over_long, next_one = single(500), single(1)
    assert scheduler.submit([over_long, next_one]) == [next_one]
    assert list_submissions(take_next(scheduler)) == [over_long]


def test_empty_flows_are_removed_and_few_empty_classes_are_kept() -> None:
    submissions = [single(flow=str(number), priority=number % 50) for number in range(1000)]
    scheduler = make_scheduler(*submissions)
    assert all(scheduler.cancel(submission) for submission in submissions[::2])
    assert sum(len(list_submissions(batch)) for batch in take_all(scheduler)) == 500
    assert not any(scheduler._queue._classes.values())
    assert len(scheduler._queue._classes) <= CLASSES_KEPT_MAX
    assert not scheduler._queue._priorities
    assert not scheduler._queue.bulk_flows
