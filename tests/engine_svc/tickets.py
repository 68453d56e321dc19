"""Tickets and schedulers for the tests of the scheduler."""

from collections.abc import Iterable

import numpy as np

from engine_svc.batch import Sequence
from engine_svc.scheduler import Batch, Scheduler, SchedulerLimits
from engine_svc.ticket import Outcome, Ticket

LIMITS = SchedulerLimits(batch_tokens_max=16, batch_items_max=4, queue_tokens_max=100, queue_items_max=24)
ROOMY = SchedulerLimits(batch_tokens_max=100, batch_items_max=8, queue_tokens_max=10**6, queue_items_max=10**5)

serial = iter(range(10**9))


def sequence(tokens: int, content: int | None = None) -> Sequence:
    """Unlike every other one, unless `content` is given."""
    return Sequence(np.full(tokens, next(serial) + 1000 if content is None else content, "<u4").tobytes())


def unwanted(outcome: Outcome) -> None:
    raise AssertionError("the scheduler delivers nothing itself")


def ticket(
    tokens: int = 10, flow: str = "a", priority: int = 0, content: int | None = None, deadline: float | None = None
) -> Ticket:
    return Ticket(sequence(tokens, content), flow, unwanted, priority, deadline)


def scheduler_of(*tickets: Ticket, limits: SchedulerLimits = ROOMY) -> Scheduler:
    scheduler = Scheduler(limits)
    assert scheduler.submit(tickets) == []
    return scheduler


def computed(batch: Batch | None) -> list[Ticket]:
    assert batch is not None
    return [ticket for tickets in batch.tickets.values() for ticket in tickets]


def passed(scheduler: Scheduler, timeout_s: float | None = None) -> Batch | None:
    """The next batch, when its pass is over."""
    batch = scheduler.take(timeout_s)
    if batch is not None:
        scheduler.give_back(batch)
    return batch


def batches(scheduler: Scheduler) -> Iterable[Batch]:
    while (batch := passed(scheduler, 0)) is not None:
        yield batch
