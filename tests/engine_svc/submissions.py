"""Submissions and schedulers for the tests of the scheduler."""

from collections.abc import Iterable

import numpy as np

from engine_svc.batching import Batch, SchedulerLimits
from engine_svc.scheduler import Scheduler
from engine_svc.sequences import Options, Sequences
from engine_svc.submission import Outcome, Submission
from tests.sequences import Sequence, columns

LIMITS = SchedulerLimits(batch_tokens_max=16, batch_items_max=4, queue_tokens_max=100, queue_items_max=24)
ROOMY = SchedulerLimits(batch_tokens_max=100, batch_items_max=8, queue_tokens_max=10**6, queue_items_max=10**5)

serial = iter(range(10**9))


def sequence(tokens: int, content: int | None = None) -> Sequence:
    """Different from every other sequence, unless `content` is given."""
    return Sequence(np.full(tokens, next(serial) + 1000 if content is None else content, "<u4").tobytes())


def refuse_outcome(outcome: Outcome) -> None:
    raise AssertionError("the scheduler delivers nothing itself")


def single(
    tokens: int = 10, flow: str = "a", priority: int = 0, content: int | None = None, deadline: float | None = None
) -> Submission:
    """A submission of one sequence."""
    return Submission(columns(sequence(tokens, content)), flow, refuse_outcome, priority, deadline)


def several(lengths: Iterable[int], flow: str = "a", priority: int = 0, deadline: float | None = None) -> Submission:
    counts = np.array(list(lengths))
    ids = np.repeat(np.arange(len(counts), dtype=np.uint32) + next(serial) + 1000, counts)
    return Submission(Sequences.of(ids, counts, options=Options()), flow, refuse_outcome, priority, deadline)


def make_scheduler(*submissions: Submission, limits: SchedulerLimits = ROOMY) -> Scheduler:
    scheduler = Scheduler(limits)
    assert scheduler.submit(submissions) == []
    return scheduler


def list_submissions(batch: Batch | None) -> list[Submission]:
    """The submission of each sequence in the batch."""
    assert batch is not None
    return [part.submission for part in batch.parts for _ in range(len(part))]


def list_expired(batch: Batch | None) -> list[Submission]:
    assert batch is not None
    return [part.submission for part in batch.late]


def take_next(scheduler: Scheduler, timeout_s: float | None = None) -> Batch | None:
    """The next batch, when its pass is over."""
    batch = scheduler.take(timeout_s)
    if batch is not None:
        scheduler.give_back(batch)
    return batch


def take_all(scheduler: Scheduler) -> Iterable[Batch]:
    while (batch := take_next(scheduler, 0)) is not None:
        yield batch
