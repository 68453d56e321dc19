"""For submissions in any order: no batch is over budget, nothing is lost or served twice, and no flow starves."""

import time
from collections.abc import Iterable

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine_svc.batching import Batch
from engine_svc.scheduler import Load, Scheduler
from engine_svc.submission import Part, Submission
from tests.engine_svc.submissions import LIMITS, several, take_next

FLOWS = ["a", "b", "c", "d/1", "d/2", "d/3", "e/", "e/f/1", "e/f/2", "e/g/1", "d"]


def turns_until(flow: str, flows: Iterable[str]) -> int:
    """The most turns until `flow` has had one: the product of the numbers of members of the groups on its path."""
    path, turns = flow.split("/"), 1
    for depth in range(len(path)):
        paths = [other.split("/") for other in flows]
        inside = [other for other in paths if other[:depth] == path[:depth] and len(other) > depth]
        turns *= len({(other[depth], len(other) == depth + 1) for other in inside})
    return turns


Waiting = tuple[Submission, int]  # and which of its sequences


def list_leavers(parts: Iterable[Part]) -> list[Waiting]:
    return [(part.submission, index) for part in parts for index in range(part.start, part.stop)]


def count_tokens(waiting: Waiting) -> int:
    submission, index = waiting
    return int(submission.sequences.lengths[index])


class SchedulerMachine(RuleBasedStateMachine):
    """Any order of submit, cancel, expiry and take, against plain lists of the sequences that wait in each flow."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(LIMITS)
        self.waiting: dict[tuple[int, str], list[Waiting]] = {}
        self.gone: list[Submission] = []  # served, expired or cancelled, all of it
        self.turns_left: dict[Waiting, int] = {}  # of the first sequence of each flow

    def all_waiting(self) -> list[Waiting]:
        return [waiting for flow in self.waiting.values() for waiting in flow]

    def submissions(self) -> list[Submission]:
        return list(dict.fromkeys(submission for submission, _ in self.all_waiting()))

    def list_flows(self, priority: int) -> list[list[Waiting]]:
        return [flow for (of, _), flow in self.waiting.items() if of == priority]

    def list_names(self, priority: int) -> list[str]:
        return [flow for of, flow in self.waiting if of == priority]

    def forget(self, leaver: Waiting) -> None:
        submission, index = leaver
        key = submission.priority, submission.flow
        self.waiting[key].remove(leaver)
        if not self.waiting[key]:
            del self.waiting[key]
        if index == len(submission.sequences) - 1:
            self.gone.append(submission)

    @rule(
        specs=st.lists(
            st.tuples(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.sampled_from(FLOWS), st.integers(0, 2)),
            max_size=6,
        )
    )
    def submit(self, specs: list[tuple[list[int], str, int]]) -> None:
        submissions = [several(*spec) for spec in specs]
        expected = []
        for submitted in submissions:
            waiting = self.all_waiting()
            tokens = sum(map(count_tokens, waiting)) + submitted.tokens
            full = len(waiting) + len(submitted.sequences) > LIMITS.queue_items_max or tokens > LIMITS.queue_tokens_max
            if waiting and full:
                expected.append(submitted)
            else:
                flow = self.waiting.setdefault((submitted.priority, submitted.flow), [])
                flow += [(submitted, index) for index in range(len(submitted.sequences))]
        assert self.scheduler.submit(submissions) == expected

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel_waiting(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.submissions()))
        assert self.scheduler.cancel(chosen)
        for waiting in self.all_waiting():
            if waiting[0] is chosen:
                self.forget(waiting)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def cancel_gone(self, data: st.DataObject) -> None:
        assert not self.scheduler.cancel(data.draw(st.sampled_from(self.gone)))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.submissions())).deadline = time.monotonic()

    @rule()
    def take(self) -> None:
        batch = take_next(self.scheduler, 0)
        if not self.waiting:
            assert batch is None
            return
        assert batch is not None
        first_class = min(priority for priority, _ in self.waiting)
        self.check_budget(batch)
        self.check_leavers(batch)
        for leaver in list_leavers([*batch.parts, *batch.late]):
            self.forget(leaver)
        self.check_nothing_else_fits(batch)
        self.check_priorities(batch)
        self.check_turns(first_class)

    def check_budget(self, batch: Batch) -> None:
        assert batch.tokens == sum(part.sequences.tokens for part in batch.parts)
        assert batch.items == sum(map(len, batch.parts))
        assert batch.tokens <= LIMITS.batch_tokens_max or batch.items == 1
        assert batch.items <= LIMITS.batch_items_max

    def check_leavers(self, batch: Batch) -> None:
        """Each sequence that leaves had waited, leaves once, and comes from the start of its flow. Those with a
        deadline have expired, the others have not."""
        leavers = list_leavers([*batch.parts, *batch.late])
        assert leavers
        assert len(set(leavers)) == len(leavers)
        assert all(leaver in self.waiting[leaver[0].priority, leaver[0].flow] for leaver in leavers)
        assert all(part.submission.deadline is not None for part in batch.late)
        assert all(part.submission.deadline is None for part in batch.parts)
        for (priority, flow), waiting in self.waiting.items():
            left = {leaver for leaver in leavers if (leaver[0].priority, leaver[0].flow) == (priority, flow)}
            assert left == set(waiting[: len(left)])

    def fits(self, batch: Batch, waiting: Waiting) -> bool:
        return batch.tokens + count_tokens(waiting) <= LIMITS.batch_tokens_max

    def check_nothing_else_fits(self, batch: Batch) -> None:
        if not batch.is_full:
            assert not any(self.fits(batch, flow[0]) for flow in self.waiting.values())

    def check_priorities(self, batch: Batch) -> None:
        """A later class gets only the room that is too small for the first sequences of earlier classes."""
        last_class = max((part.submission.priority for part in batch.parts), default=0)
        for priority in range(last_class):
            assert not any(self.fits(batch, flow[0]) for flow in self.list_flows(priority))

    def check_turns(self, first_class: int) -> None:
        """The first sequence of a flow in the first class is in one of the next n batches: n is the number of flows or,
        for flows in groups, the product of the numbers of members."""
        waiting = set(self.all_waiting())
        for first, turns in self.turns_left.items():
            if first[0].priority == first_class and first in waiting:
                assert turns > 1
                self.turns_left[first] = turns - 1

    @invariant()
    def count_turns(self) -> None:
        """New flows join at the end, but may come before members of a group that are not first in it."""
        for (priority, flow), waiting in self.waiting.items():
            if "/" in flow or waiting[0] not in self.turns_left:
                self.turns_left[waiting[0]] = turns_until(flow, self.list_names(priority))
        self.turns_left = {waiting[0]: self.turns_left[waiting[0]] for waiting in self.waiting.values()}

    @invariant()
    def load_is_what_waits(self) -> None:
        waiting = self.all_waiting()
        assert self.scheduler.load() == Load(len(waiting), sum(map(count_tokens, waiting)))
        for priority, turns in self.scheduler._queue._classes.items():
            assert turns.weight == sum(count_tokens(each) for flow in self.list_flows(priority) for each in flow)

    def teardown(self) -> None:
        self.scheduler.close()
        while self.waiting:
            self.take()
        assert self.scheduler.take() is None
        assert self.scheduler.load() == Load(0, 0)


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
