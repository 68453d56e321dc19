"""Whatever comes in whatever order: never over budget, nothing lost or served twice, nobody starved, order kept."""

import time
from collections.abc import Iterable

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine_svc.scheduler import Batch, Load, Scheduler
from engine_svc.ticket import Ticket
from tests.engine_svc.tickets import LIMITS, computed, passed, ticket

FLOWS = ["a", "b", "c", "d/1", "d/2", "d/3", "e/", "e/f/1", "e/f/2", "e/g/1", "d"]


def turns_until(flow: str, flows: Iterable[str]) -> int:
    """The most turns until `flow` has had one: the product of the numbers of members of the groups on its path."""
    path, turns = flow.split("/"), 1
    for depth in range(len(path)):
        paths = [other.split("/") for other in flows]
        inside = [other for other in paths if other[:depth] == path[:depth] and len(other) > depth]
        turns *= len({(other[depth], len(other) == depth + 1) for other in inside})
    return turns


class SchedulerMachine(RuleBasedStateMachine):
    """Any order of submit, cancel, expiry and take, against plain lists of what waits in each flow."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(LIMITS)
        self.waiting: dict[tuple[int, str], list[Ticket]] = {}
        self.gone: list[Ticket] = []  # served, expired or cancelled
        self.turns_left: dict[Ticket, int] = {}  # of the first ticket of each flow

    def all_waiting(self) -> list[Ticket]:
        return [ticket for tickets in self.waiting.values() for ticket in tickets]

    def flows_of(self, priority: int) -> list[list[Ticket]]:
        return [tickets for (of, _), tickets in self.waiting.items() if of == priority]

    def names_of(self, priority: int) -> list[str]:
        return [flow for of, flow in self.waiting if of == priority]

    def forget(self, ticket: Ticket) -> None:
        key = ticket.priority, ticket.flow
        self.waiting[key].remove(ticket)
        if not self.waiting[key]:
            del self.waiting[key]
        self.gone.append(ticket)

    @rule(
        specs=st.lists(
            st.tuples(
                st.integers(1, 20), st.sampled_from(FLOWS), st.integers(0, 2), st.sampled_from([None, None, 1, 2])
            ),
            max_size=8,
        )
    )
    def submit(self, specs: list[tuple[int, str, int, int | None]]) -> None:
        tickets = [ticket(*spec) for spec in specs]
        expected = []
        for submitted in tickets:
            tokens = sum(waiting.tokens for waiting in self.all_waiting())
            full = len(self.all_waiting()) >= LIMITS.queue_items_max
            if full or (tokens and tokens + submitted.tokens > LIMITS.queue_tokens_max):
                expected.append(submitted)
            else:
                self.waiting.setdefault((submitted.priority, submitted.flow), []).append(submitted)
        assert self.scheduler.submit(tickets) == expected

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel_waiting(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.all_waiting()))
        assert self.scheduler.cancel(chosen)
        self.forget(chosen)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def cancel_gone(self, data: st.DataObject) -> None:
        assert not self.scheduler.cancel(data.draw(st.sampled_from(self.gone)))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.all_waiting())).deadline = time.monotonic()

    @rule()
    def take(self) -> None:
        batch = passed(self.scheduler, 0)
        if not self.waiting:
            assert batch is None
            return
        assert batch is not None
        first_class = min(priority for priority, _ in self.waiting)
        self.check_budget(batch)
        self.check_leavers(batch)
        for leaver in (*computed(batch), *batch.expired):
            self.forget(leaver)
        self.check_nothing_else_fits(batch)
        self.check_priorities(batch)
        self.check_turns(first_class)

    def check_budget(self, batch: Batch) -> None:
        assert batch.tokens == sum(sequence.tokens for sequence in batch.tickets)
        assert batch.tokens <= LIMITS.batch_tokens_max or len(batch.tickets) == 1
        assert len(batch.tickets) <= LIMITS.batch_items_max

    def check_leavers(self, batch: Batch) -> None:
        """Each waited, leaves once, to the right place; and what leaves a flow is its beginning."""
        leavers = [*computed(batch), *batch.expired]
        assert leavers
        assert len(set(leavers)) == len(leavers)
        assert all(leaver in self.waiting[leaver.priority, leaver.flow] for leaver in leavers)
        assert all(ticket.deadline is not None for ticket in batch.expired)
        assert all(ticket.deadline is None for ticket in computed(batch))
        assert all(ticket.sequence == key for key, tickets in batch.tickets.items() for ticket in tickets)
        for (priority, flow), tickets in self.waiting.items():
            left = {leaver for leaver in leavers if (leaver.priority, leaver.flow) == (priority, flow)}
            assert left == set(tickets[: len(left)])

    def fits(self, batch: Batch, waiting: Ticket) -> bool:
        return batch.tokens + waiting.tokens <= LIMITS.batch_tokens_max or waiting.sequence in batch.tickets

    def check_nothing_else_fits(self, batch: Batch) -> None:
        if not batch.is_full(LIMITS):
            assert not any(self.fits(batch, tickets[0]) for tickets in self.waiting.values())

    def check_priorities(self, batch: Batch) -> None:
        """Sequences of a later class are only what first ones of earlier classes left room for."""
        last_class = max((ticket.priority for ticket in computed(batch)), default=0)
        for priority in range(last_class):
            assert not any(self.fits(batch, tickets[0]) for tickets in self.flows_of(priority))

    def check_turns(self, first_class: int) -> None:
        """The first ticket of a flow in the first class is in one of the next n batches: n is the number of flows or,
        for flows in groups, the product of the numbers of members."""
        for waiting, turns in self.turns_left.items():
            if waiting.priority == first_class and waiting not in self.gone:
                assert turns > 1
                self.turns_left[waiting] = turns - 1

    @invariant()
    def count_turns(self) -> None:
        """New flows join at the end, but may come before members of a group that are not first in it."""
        for (priority, flow), tickets in self.waiting.items():
            if "/" in flow or tickets[0] not in self.turns_left:
                self.turns_left[tickets[0]] = turns_until(flow, self.names_of(priority))
        self.turns_left = {tickets[0]: self.turns_left[tickets[0]] for tickets in self.waiting.values()}

    @invariant()
    def load_is_what_waits(self) -> None:
        waiting = self.all_waiting()
        assert self.scheduler.load() == Load(len(waiting), sum(ticket.tokens for ticket in waiting))

    def teardown(self) -> None:
        self.scheduler.close()
        while self.waiting:
            self.take()
        assert self.scheduler.take() is None
        assert self.scheduler.load() == Load(0, 0)


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
