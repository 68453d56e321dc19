"""Which waiting sequences run next. The servicer submits and cancels; a lane takes a batch for each pass that is free.

A batch is formed at the moment a pass can begin, never before and never after a wait for more:

* Classes are served by priority, strictly: while smaller numbers fill every batch, larger ones wait.
* Within a class flows take turns, one sequence a turn, each flow in its own order. New flows join at the end. Flows
  whose names have the same prefix, such as `caller/one` and `caller/two`, form a group. A group takes turns with other
  flows as if it were one flow, and its members take turns inside it. So a caller gets one share of the engine, however
  many requests it sends at once.
* A sequence that does not fit in what is left of the budget keeps its flow's place, and other flows fill the rest.
  The flow in front is in every batch but an express one, so one with n flows before it in the first class is in one of
  the next n + 1. Inside a group of m flows, it may take m times as many.
* Expired tickets leave without costing a turn. Equal sequences met while forming a batch are computed once.
* The passes that can begin at once share what waits, and the cores that are free, as far as each has enough to do: a
  pass on one core waits for no other core, and while one's answers are on their way, the others compute. What is less
  than that, or a sequence alone, has all cores.
* On a GPU passes run in turn. While one runs, the next is formed and queued on the device as soon as a good part of a
  full batch waits, so that the device does not wait for the host. With less than that waiting, it is formed when the
  device is free: formed earlier, it would miss what comes meanwhile.
* While one flow has more waiting than a batch holds and all passes are busy, an express pass takes little sequences of
  others beside them, where somebody asks for it: the system shares the cores, and nobody waits for a bulk's batch.

The work of forming is proportional to the tickets that leave, however many wait.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

from engine_svc.batch import Sequence
from engine_svc.flows import Flow, Flows
from engine_svc.ticket import Ticket

# Flows that one batch may pass over in search of sequences that fit. More would fill batches little better.
PASSED_OVER_MAX = 64

# With fewer for each, cores would spend more time on waiting for one another than they save.
TOKENS_PER_CORE_MIN = 16

# What waits is not shared into less. Each pass reads all weights anew, which takes as long as computing 20 tokens.
PASS_TOKENS_MIN = 128

# Where passes run in turn: the part of a full batch that must wait for another one to be formed while one runs. In a
# simulation of MiniLM on a large GPU, with texts of 500 tokens, such a second pass raised the throughput by 15 %. At
# 10 % load the median stayed at 1.5 ms; it was 2.2 ms where anything that waited was enough.
QUEUED_PASS_SHARE_MIN = 0.25

# Of an express pass in all.
EXPRESS_TOKENS_MAX = 128


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


@dataclass(slots=True, eq=False)
class Batch:
    """What one forward is to compute, and for whom. Holds no sequences if all that was found had expired."""

    formed_at: float  # time.monotonic
    tickets: dict[Sequence, list[Ticket]] = field(default_factory=dict)
    expired: list[Ticket] = field(default_factory=list)
    tokens: int = 0  # of the sequences, each counted once
    cores: int = 1  # that its pass has; 0 where passes run in turn
    is_express: bool = False

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


class Scheduler:
    """Thread-safe. `take` blocks; everything else returns at once and may be called from an event loop."""

    def __init__(self, limits: SchedulerLimits, *, passes: int = 1, cores: int = 1, runs_in_turn: bool = False) -> None:
        """So many passes may run at once, each on one of the cores at least, and express ones beside them. With
        `runs_in_turn` so many may be on a device that runs one after the other, and cores do not matter."""
        self.runs_in_turn = runs_in_turn
        self._limits = limits
        self._express_limits = replace(limits, batch_tokens_max=min(limits.batch_tokens_max, EXPRESS_TOKENS_MAX))
        self._passes_max = self._passes_free = passes if runs_in_turn else min(passes, cores)
        self._cores_free = cores
        self._flows = Flows(bulk_tokens=limits.batch_tokens_max)
        self._closed = False
        self._lock = threading.Lock()
        self._waiting: list[threading.Condition] = []  # threads in `take`, the one that came last at the end
        self._waiting_express: list[threading.Condition] = []

    def submit(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        """Returns those that were refused, because the queue is full or closed."""
        with self._lock:
            refused = [ticket for ticket in tickets if not self._enqueue(ticket)]
            self._wake()
        return refused

    def cancel(self, ticket: Ticket) -> bool:
        """True if it was waiting: it has left, and nothing will be delivered. No effect if it is running or gone."""
        with self._lock:
            return self._flows.remove(ticket)

    def take(self, timeout_s: float | None = None) -> Batch | None:
        """The next batch, as soon as anything waits and a pass is free for it; `give_back` frees the pass. None after
        timeout_s, or when closed and empty."""
        with self._lock:
            self._wait(self._waiting, self._can_begin, timeout_s)
            batch = self._usual() if self._can_begin() else None
            self._wake()
        return batch

    def take_express(self, timeout_s: float | None = None) -> Batch | None:
        """As `take`, but what may not wait for a pass to become free. Who takes it runs it at once, on no core of its
        own."""
        with self._lock:
            self._wait(self._waiting_express, self._can_begin_express, timeout_s)
            batch = self._express() if self._can_begin_express() else None
            self._wake()
        return batch

    def give_back(self, batch: Batch) -> None:
        """Its pass is over."""
        with self._lock:
            if not batch.is_express:
                self._passes_free += 1
                self._cores_free += batch.cores
            self._wake()

    def close(self) -> None:
        """Refuse new tickets. What waits is still handed out; then every `take` returns None."""
        with self._lock:
            self._closed = True
            self._wake()

    def load(self) -> Load:
        return Load(self._flows.items, self._flows.tokens)

    @property
    def _passes(self) -> int:
        """That could begin now."""
        is_busy = self._passes_free < self._passes_max
        if self.runs_in_turn and is_busy and not self._is_worth_queueing:
            return 0
        return min(self._passes_free, self._cores_free)

    @property
    def _is_worth_queueing(self) -> bool:
        waiting, limits = self._flows, self._limits
        filled = max(waiting.tokens / limits.batch_tokens_max, waiting.items / limits.batch_items_max)
        return filled >= QUEUED_PASS_SHARE_MIN

    @property
    def _is_over(self) -> bool:
        return self._closed and not self._flows

    def _enqueue(self, ticket: Ticket) -> bool:
        if not self._admits(ticket):
            return False
        ticket.submitted_at = time.monotonic()
        self._flows.put(ticket)
        return True

    def _admits(self, ticket: Ticket) -> bool:
        waiting = self._flows
        if self._closed or waiting.items >= self._limits.queue_items_max:
            return False
        return not waiting or waiting.tokens + ticket.tokens <= self._limits.queue_tokens_max

    def _wait(self, line: list[threading.Condition], can_begin: Callable[[], bool], timeout_s: float | None) -> None:
        turn = threading.Condition(self._lock)
        line.append(turn)
        turn.wait_for(lambda: self._is_over or can_begin(), timeout_s)
        line.remove(turn)

    def _wake(self) -> None:
        """The thread that came last: where passes have several cores, the helpers of its last pass are still awake. It
        takes its share, and if something is left, wakes the next."""
        if self._is_over:
            turns = self._waiting + self._waiting_express
        elif self._can_begin():
            turns = self._waiting[-1:]
        elif self._waiting_express and self._can_begin_express():
            turns = self._waiting_express[-1:]
        else:
            return
        for turn in turns:
            turn.notify()

    def _can_begin(self) -> bool:
        return bool(self._flows and self._passes)

    def _can_begin_express(self) -> bool:
        return not self._passes and bool(self._little_flows())

    def _usual(self) -> Batch:
        batch = Batch(formed_at=time.monotonic())
        if self.runs_in_turn:
            self._fill(batch, self._limits)
            batch.cores = 0
        else:
            self._fill(batch, self._limits_of_a_share())
            share = self._cores_free // self._passes if self._flows else self._cores_free
            batch.cores = min(share, max(1, batch.tokens // TOKENS_PER_CORE_MIN))
        self._passes_free -= 1
        self._cores_free -= batch.cores
        return batch

    def _limits_of_a_share(self) -> SchedulerLimits:
        share_tokens = max(PASS_TOKENS_MIN, -(-self._flows.tokens // self._passes))
        return replace(self._limits, batch_tokens_max=min(share_tokens, self._limits.batch_tokens_max))

    def _fill(self, batch: Batch, limits: SchedulerLimits) -> None:
        passed_over: list[Flow] = []
        while self._flows and not batch.is_full(limits) and len(passed_over) < PASSED_OVER_MAX:
            flow = self._flows.front
            if flow.first.is_expired(batch.formed_at):
                batch.expired.append(flow.first)
                self._flows.remove(flow.first)
            elif batch.add(flow.first, limits.batch_tokens_max):
                self._flows.take_turn(flow)
            else:
                passed_over.append(flow)
                self._flows.set_aside(flow)
        for flow in reversed(passed_over):
            self._flows.put_back(flow)

    def _express(self) -> Batch:
        batch = Batch(formed_at=time.monotonic(), is_express=True)
        limits = self._express_limits
        for flow in self._little_flows():
            for ticket in tuple(flow.tickets):
                if ticket.is_expired(batch.formed_at):
                    batch.expired.append(ticket)
                elif batch.is_full(limits) or batch.tokens + ticket.tokens > limits.batch_tokens_max:
                    break
                else:
                    batch.add(ticket, limits.batch_tokens_max)
                self._flows.remove(ticket)
        return batch

    def _little_flows(self) -> list[Flow]:
        """Of the first ones, those that an express pass has something of to run."""
        if not self._flows.bulks:
            return []
        first = islice(self._flows.of_first_class(), PASSED_OVER_MAX)
        return [
            flow
            for flow in first
            if not self._flows.is_bulk(flow) and flow.first.tokens <= self._express_limits.batch_tokens_max
        ]
