"""Decides which waiting sequences run next. The servicer submits and cancels; a worker takes a batch for each pass.

A batch is formed at the moment a pass can begin, never before and never after a wait for more:

* Classes are served by priority, strictly: while smaller numbers fill every batch, larger ones wait.
* Within a class flows take turns, each flow in its own order. A turn takes as many sequences as all flows of the class
  could in what is left of the batch, and at least one. New flows join at the end. Flows whose names have the same
  prefix, such as `caller/one` and `caller/two`, form a group. A group takes turns with other flows as if it were one
  flow, and its members take turns inside it. So a caller gets one share of the engine, however many requests it sends
  at once.
* A sequence that does not fit in what is left of the budget keeps its flow's place, and other flows fill the rest.
  The flow in front is in every batch but an express one, so one with n flows before it in the first class is in one of
  the next n + 1. Inside a group of m flows, it may take m times as many.
* Expired submissions leave without costing a turn.
* The passes that can begin at once share what waits, and the cores that are free, as far as each has enough to do: a
  pass on one core waits for no other core, and while one's answers are on their way, the others compute. What is less
  than that, or a sequence alone, has all cores.
* On a GPU passes run in turn. While one runs, the next is formed and queued on the device as soon as a good part of a
  full batch waits, so that the device does not wait for the host. With less than that waiting, it is formed when the
  device is free: formed earlier, it would miss what comes meanwhile.
* While one flow has more waiting than a batch holds and all passes are busy, an express pass takes little sequences of
  others beside them, where somebody asks for it: the system shares the cores, and nobody waits for a bulk's batch.

The work of forming is proportional to the submissions and flows that leave, however many sequences they have and
however many wait.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from engine_svc.fair_queue import FairQueue, Flow
from engine_svc.forming import Batch, SchedulerLimits, Share
from engine_svc.submission import Part, Submission

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


class Load(NamedTuple):
    waiting_items: int
    waiting_tokens: int


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
        self._queue = FairQueue(bulk_tokens=limits.batch_tokens_max)
        self._closed = False
        self._lock = threading.Lock()
        self._waiting: list[threading.Condition] = []  # threads in `take`, the one that came last at the end
        self._waiting_express: list[threading.Condition] = []

    def submit(self, submissions: Iterable[Submission]) -> list[Submission]:
        """Returns those that were refused, because the queue is full or closed."""
        with self._lock:
            refused = [submission for submission in submissions if not self._enqueue(submission)]
            self._wake()
        return refused

    def cancel(self, submission: Submission) -> bool:
        """True if some of it was waiting: that has left, and nothing will be delivered, also of what is running. No
        effect if all of it is running or gone."""
        with self._lock:
            return self._queue.remove(submission)

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
        return Load(self._queue.items, self._queue.tokens)

    @property
    def _passes(self) -> int:
        """That could begin now."""
        is_busy = self._passes_free < self._passes_max
        if self.runs_in_turn and is_busy and not self._is_worth_queueing:
            return 0
        return min(self._passes_free, self._cores_free)

    @property
    def _is_worth_queueing(self) -> bool:
        waiting, limits = self._queue, self._limits
        filled = max(waiting.tokens / limits.batch_tokens_max, waiting.items / limits.batch_items_max)
        return filled >= QUEUED_PASS_SHARE_MIN

    @property
    def _is_over(self) -> bool:
        return self._closed and not self._queue

    def _enqueue(self, submission: Submission) -> bool:
        if not self._admits(submission):
            return False
        submission.submitted_at = time.monotonic()
        self._queue.put(submission)
        return True

    def _admits(self, submission: Submission) -> bool:
        waiting, limits = self._queue, self._limits
        if self._closed or not waiting:
            return not self._closed
        tokens, items = waiting.tokens + submission.tokens, waiting.items + submission.waiting
        return tokens <= limits.queue_tokens_max and items <= limits.queue_items_max

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
        return bool(self._queue and self._passes)

    def _can_begin_express(self) -> bool:
        return not self._passes and bool(self._little_flows())

    def _usual(self) -> Batch:
        batch = Batch(formed_at=time.monotonic())
        if self.runs_in_turn:
            self._fill(batch, self._limits)
            batch.cores = 0
        else:
            self._fill(batch, self._limits_of_a_share())
            share = self._cores_free // self._passes if self._queue else self._cores_free
            batch.cores = min(share, max(1, batch.tokens // TOKENS_PER_CORE_MIN))
        self._passes_free -= 1
        self._cores_free -= batch.cores
        return batch

    def _limits_of_a_share(self) -> SchedulerLimits:
        share_tokens = max(PASS_TOKENS_MIN, -(-self._queue.tokens // self._passes))
        return replace(self._limits, batch_tokens_max=min(share_tokens, self._limits.batch_tokens_max))

    def _fill(self, batch: Batch, limits: SchedulerLimits) -> None:
        queue, share = self._queue, Share(limits)
        passed_over: list[Flow] = []
        while queue and not batch.is_full(limits) and len(passed_over) < PASSED_OVER_MAX:
            flow = queue.front
            if self._drop_expired(flow.first, batch):
                continue
            fitting = batch.fitting(flow.first, limits)
            if fitting:
                share.begin_turn(batch, queue)
                queue.move_to_end(flow)
                self._take_turn(flow, batch, share, fitting)
            else:
                passed_over.append(flow)
                queue.set_aside(flow)
        for flow in reversed(passed_over):
            queue.put_back(flow)

    def _take_turn(self, flow: Flow, batch: Batch, share: Share, fitting: int) -> None:
        """`fitting` are the sequences of its first submission that the batch has room for."""
        tokens_max = min(batch.tokens + share.tokens, share.limits.batch_tokens_max)
        items_max = min(batch.items + share.items, share.limits.batch_items_max)
        count = min(fitting, max(1, flow.first.fitting(share.tokens, share.items)))
        while count > 0:
            tokens = flow.tokens
            part = self._queue.take(flow, count)
            batch.add(part, tokens - flow.tokens)
            while flow.submissions and self._drop_expired(flow.first, batch):
                pass
            if not flow.submissions:
                return
            count = flow.first.fitting(tokens_max - batch.tokens, items_max - batch.items)

    def _drop_expired(self, submission: Submission, batch: Batch) -> bool:
        if not submission.is_expired(batch.formed_at):
            return False
        batch.expired.append(Part(submission, submission.taken, len(submission.sequences)))
        self._queue.remove(submission)
        return True

    def _express(self) -> Batch:
        batch = Batch(formed_at=time.monotonic(), is_express=True)
        limits = self._express_limits
        for flow in self._little_flows():
            while flow.submissions and not batch.is_full(limits):
                if self._drop_expired(flow.first, batch):
                    continue
                count = batch.fitting(flow.first, limits)
                if not count:
                    break
                tokens = flow.tokens
                batch.add(self._queue.take(flow, count), tokens - flow.tokens)
        return batch

    def _little_flows(self) -> list[Flow]:
        """Of the first ones, those that an express pass has something of to run."""
        if not self._queue.bulks:
            return []
        first = islice(self._queue.of_first_class(), PASSED_OVER_MAX)
        return [
            flow
            for flow in first
            if not self._queue.is_bulk(flow) and flow.first.first_tokens <= self._express_limits.batch_tokens_max
        ]
