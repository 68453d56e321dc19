"""Which waiting sequences run next. The servicer submits and cancels; a lane takes a batch for each pass that is free.

A batch is formed at the moment a pass can begin, never before and never after a wait for more:

* Classes are served by priority, strictly: while smaller numbers fill every batch, larger ones wait.
* Within a class flows take turns, one sequence a turn, each flow in its own order. New flows join at the end.
* A sequence that does not fit in what is left of the budget keeps its flow's place, and other flows fill the rest.
  The flow in front is in every batch, so one with n flows before it in the first class is in one of the next n + 1.
* Expired tickets leave without costing a turn. Equal sequences met while forming a batch are computed once.
* What fits in one batch has all cores that are free. Where more waits, passes that can begin at once share the cores:
  on one of its own, none waits for another.

The work of forming is proportional to the tickets that leave, however many wait.
"""

import threading
import time
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine_svc.batch import Sequence

# Flows that one batch may pass over in search of sequences that fit. More would fill batches little better.
PASSED_OVER_MAX = 64

# With fewer for each, cores would spend more time on waiting for one another than they save.
TOKENS_PER_CORE_MIN = 16


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """The queue's are limits of what waits, beyond what is running. A single sequence may exceed both in tokens."""

    batch_tokens_max: int
    batch_items_max: int  # sequences computed; duplicates are not counted
    queue_tokens_max: int
    queue_items_max: int


class Load(NamedTuple):
    waiting_items: int
    waiting_tokens: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a ticket: its array, of the shape that Backend.run states, or why there is none."""

    result: npt.NDArray[np.float32] | Exception
    queue_s: float
    compute_s: float  # of the batch that the sequence was part of; 0 if it never ran


@dataclass(slots=True, eq=False)
class Ticket:
    """One sequence on its way through the engine, and where its outcome goes. May be submitted once."""

    sequence: Sequence
    flow: str  # fair-share key, of its class
    deliver: Callable[[Outcome], None]  # called once, unless the ticket was refused or `cancel` returned true
    priority: int = 0  # smaller first
    deadline: float | None = None  # on the clock of time.monotonic
    tokens: int = field(init=False)
    submitted_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.tokens = self.sequence.tokens


@dataclass(slots=True, eq=False)
class Batch:
    """What one forward is to compute, and for whom. Holds no sequences if all that was found had expired."""

    formed_at: float  # time.monotonic
    tickets: dict[Sequence, list[Ticket]] = field(default_factory=dict)
    expired: list[Ticket] = field(default_factory=list)
    tokens: int = 0  # of the sequences, each counted once
    cores: int = 1  # that its pass has

    def is_full(self, limits: SchedulerLimits) -> bool:
        return self.tokens >= limits.batch_tokens_max or len(self.tickets) >= limits.batch_items_max

    def add(self, ticket: Ticket, tokens_max: int) -> bool:
        """False if it does not fit. The first always fits: one that is longer than the budget runs alone."""
        exceeds = self.tokens + ticket.tokens > tokens_max
        if exceeds and self.tickets and ticket.sequence not in self.tickets:
            return False
        waiting_for_it = self.tickets.setdefault(ticket.sequence, [])
        if not waiting_for_it:
            self.tokens += ticket.tokens
        waiting_for_it.append(ticket)
        return True


@dataclass(slots=True, eq=False)
class _Flow:
    """Waiting tickets of one caller, first in first out. Ordered dict: a cancelled one leaves from the middle."""

    name: str
    priority: int
    tickets: OrderedDict[Ticket, None] = field(default_factory=OrderedDict)


class Scheduler:
    """Thread-safe. `take` blocks; everything else returns at once and may be called from an event loop."""

    def __init__(self, limits: SchedulerLimits, *, passes: int = 1, cores: int = 1) -> None:
        """So many passes may run at once, each on one of the cores at least. A GPU counts as one core."""
        self._limits = limits
        self._passes_free = min(passes, cores)
        self._cores_free = cores
        self._classes: dict[int, OrderedDict[str, _Flow]] = {}  # flows in the order of their turns; none is empty
        self._priorities: list[int] = []  # of the classes, sorted
        self._items = 0
        self._tokens = 0
        self._closed = False
        self._lock = threading.Lock()
        self._waiting: list[threading.Condition] = []  # threads in `take`, the one that came last at the end

    def submit(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        """Returns those that were refused, because the queue is full or closed."""
        with self._lock:
            refused = [ticket for ticket in tickets if not self._enqueue(ticket)]
            self._wake()
        return refused

    def cancel(self, ticket: Ticket) -> bool:
        """True if it was waiting: it has left, and nothing will be delivered. No effect if it is running or gone."""
        with self._lock:
            flow = self._flow_of(ticket)
            if flow is None or ticket not in flow.tickets:
                return False
            self._dequeue(flow, ticket)
            return True

    def take(self, timeout_s: float | None = None) -> Batch | None:
        """The next batch, as soon as anything waits and a pass is free for it; `give_back` frees the pass. None after
        timeout_s, or when closed and empty."""
        with self._lock:
            self._wait(timeout_s)
            batch = self._formed() if self._items and self._passes else None
            self._wake()
        return batch

    def give_back(self, batch: Batch) -> None:
        """Its pass is over."""
        with self._lock:
            self._passes_free += 1
            self._cores_free += batch.cores
            self._wake()

    def close(self) -> None:
        """Refuse new tickets. What waits is still handed out; then every `take` returns None."""
        with self._lock:
            self._closed = True
            self._wake()

    def load(self) -> Load:
        return Load(self._items, self._tokens)

    @property
    def _passes(self) -> int:
        """That could begin now."""
        return min(self._passes_free, self._cores_free)

    @property
    def _is_over(self) -> bool:
        return self._closed and not self._items

    def _wait(self, timeout_s: float | None) -> None:
        turn = threading.Condition(self._lock)
        self._waiting.append(turn)
        turn.wait_for(lambda: (self._items and self._passes) or self._is_over, timeout_s)
        self._waiting.remove(turn)

    def _wake(self) -> None:
        """The thread that came last: where passes have several cores, the helpers of its last pass are still awake. It
        takes its share, and if something is left, wakes the next."""
        for turn in self._waiting if self._is_over else self._waiting[-1:]:
            turn.notify()

    def _formed(self) -> Batch:
        batch = Batch(formed_at=time.monotonic())
        self._fill(batch)
        share = self._cores_free // self._passes if self._items else self._cores_free
        batch.cores = min(share, max(1, batch.tokens // TOKENS_PER_CORE_MIN))
        self._passes_free -= 1
        self._cores_free -= batch.cores
        return batch

    def _fill(self, batch: Batch) -> None:
        passed_over: list[_Flow] = []
        while self._priorities and not batch.is_full(self._limits) and len(passed_over) < PASSED_OVER_MAX:
            flow = self._flow_in_front()
            ticket = next(iter(flow.tickets))
            if ticket.deadline is not None and ticket.deadline <= batch.formed_at:
                batch.expired.append(ticket)
                self._dequeue(flow, ticket)
            elif batch.add(ticket, self._limits.batch_tokens_max):
                self._classes[flow.priority].move_to_end(flow.name)
                self._dequeue(flow, ticket)
            else:
                passed_over.append(flow)
                self._detach(flow)
        for flow in reversed(passed_over):
            self._attach(flow)
            self._classes[flow.priority].move_to_end(flow.name, last=False)

    def _flow_in_front(self) -> _Flow:
        return next(iter(self._classes[self._priorities[0]].values()))

    def _flow_of(self, ticket: Ticket) -> _Flow | None:
        flows = self._classes.get(ticket.priority)
        return flows.get(ticket.flow) if flows else None

    def _enqueue(self, ticket: Ticket) -> bool:
        if not self._admits(ticket):
            return False
        ticket.submitted_at = time.monotonic()
        flow = self._flow_of(ticket)
        if flow is None:
            flow = _Flow(ticket.flow, ticket.priority)
            self._attach(flow)
        flow.tickets[ticket] = None
        self._items += 1
        self._tokens += ticket.tokens
        return True

    def _admits(self, ticket: Ticket) -> bool:
        if self._closed or self._items >= self._limits.queue_items_max:
            return False
        return self._items == 0 or self._tokens + ticket.tokens <= self._limits.queue_tokens_max

    def _dequeue(self, flow: _Flow, ticket: Ticket) -> None:
        del flow.tickets[ticket]
        self._items -= 1
        self._tokens -= ticket.tokens
        if not flow.tickets:
            self._detach(flow)

    def _attach(self, flow: _Flow) -> None:
        if flow.priority not in self._classes:
            self._classes[flow.priority] = OrderedDict()
            insort(self._priorities, flow.priority)
        self._classes[flow.priority][flow.name] = flow

    def _detach(self, flow: _Flow) -> None:
        flows = self._classes[flow.priority]
        del flows[flow.name]
        if not flows:
            del self._classes[flow.priority]
            self._priorities.remove(flow.priority)
