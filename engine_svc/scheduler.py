"""Decides when a pass begins, and with how many tokens and cores. The servicer submits and cancels; workers take a
batch for each pass. `engine_svc.batching` chooses what goes into the batch, and `heddle.admission` what is refused.

A batch is formed at the moment a pass can begin, never before and never after waiting for more:

* The passes that can begin at once share what waits and the cores that are free, if each gets enough to do. A pass on
  one core waits for no other core, and while the results of one are on their way, the others compute. If less waits, or
  a single sequence, it gets all cores.
* On a GPU passes run in turn. While one runs, the next is formed and queued on the device as soon as a good part of a
  full batch waits, so that the device need not wait for the host. Otherwise it is formed when the device is free:
  formed earlier, it would miss what arrives in the meantime.
* While one flow has more waiting than a batch holds and all passes are busy, an express pass takes short sequences of
  other flows, if a thread asks for one. The operating system shares the cores, and no caller waits for another's bulk.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from engine_svc.batching import Batch, SchedulerLimits, fill, fill_express, find_express_flows
from engine_svc.counts import EngineCounts
from engine_svc.fair_queue import FairQueue
from engine_svc.pass_times import PassTimes
from engine_svc.submission import Refusal, Submission
from heddle.admission import RETRY_AFTER_MS_UNKNOWN, Admission

# With fewer tokens each, cores would spend more time waiting for one another than they save.
TOKENS_PER_CORE_MIN = 16

# What waits is not divided into smaller passes. Each pass reads all weights anew, which takes as long as computing 20
# tokens.
PASS_TOKENS_MIN = 128

# Where passes run in turn: the part of a full batch that must wait before another one is formed while one runs. In a
# simulation of MiniLM on a large GPU, with texts of 500 tokens, this second pass raised throughput by 15 %. At 10 %
# load the median latency stayed at 1.5 ms; it was 2.2 ms when any amount was enough.
QUEUED_PASS_SHARE_MIN = 0.25

EXPRESS_TOKENS_MAX = 128


class Load(NamedTuple):
    waiting_items: int
    waiting_tokens: int


class Waiting(NamedTuple):
    submissions: int
    sequences: int
    tokens: int
    age_s: float  # of the oldest submission; 0 if none waits


class Scheduler:
    """Thread-safe. Only `take` and `take_express` block; the others may be called from an event loop."""

    def __init__(
        self,
        limits: SchedulerLimits,
        *,
        passes: int = 1,
        cores: int = 1,
        runs_in_turn: bool = False,
        queue_s_max: float = math.inf,
    ) -> None:
        """At most `passes` run at once, each on at least one of the cores, with express passes beside them. With
        `runs_in_turn`, that many may be queued on a device that runs one after the other, and cores do not matter.
        `queue_s_max` is the longest wait for which a submission is accepted."""
        self.limits = limits
        self.runs_in_turn = runs_in_turn
        self.counts = EngineCounts()
        self._express_limits = replace(limits, batch_tokens_max=min(limits.batch_tokens_max, EXPRESS_TOKENS_MAX))
        self._passes_max = self._passes_free = passes if runs_in_turn else min(passes, cores)
        self._cores_free = cores
        self._queue = FairQueue(bulk_tokens=limits.batch_tokens_max)
        self._admission = Admission(queue_s_max, 1 if runs_in_turn else self._passes_max)
        self._pass_times = PassTimes(self._admission.throughput, self._passes_max, runs_in_turn=runs_in_turn)
        self._waiting_since = 0.0  # since when the queue has not been empty
        self._closed = False
        self._lock = threading.Lock()
        self._idle: list[threading.Condition] = []  # threads that wait in `take`, the latest at the end
        self._idle_express: list[threading.Condition] = []

    def submit(self, submissions: Iterable[Submission]) -> list[Submission]:
        """Returns the refused submissions, with the reason in `refusal`."""
        refused = []
        with self._lock:
            now = time.monotonic()
            for submission in submissions:
                submission.refusal = self._find_refusal(submission, now)
                if submission.refusal is not None:
                    self.counts.refused[submission.refusal.reason] += 1
                    refused.append(submission)
                    continue
                submission.submitted_at = now
                if not self._queue.items:
                    self._waiting_since = now
                self._queue.put(submission)
            self._wake()
        return refused

    def cancel(self, submission: Submission) -> bool:
        """Removes what still waits of the submission; nothing of it will be delivered, not even what is running.
        Returns False, and has no effect, if all of it is running or done."""
        with self._lock:
            is_waiting = self._queue.remove(submission)
            if is_waiting:
                self.counts.cancelled_sequences += submission.waiting
            return is_waiting

    def take(self, timeout_s: float | None = None) -> Batch | None:
        """Blocks until something waits and a pass is free for it, which `give_back` frees again. Returns None after the
        timeout, and when the scheduler is closed and empty."""
        with self._lock:
            batch = self._form() if self._wait(self._idle, self._can_begin, timeout_s) else None
            if batch is not None:
                self.counts.count_batch(batch, self.limits.batch_tokens_max)
            self._wake()
        return batch

    def take_express(self, timeout_s: float | None = None) -> Batch | None:
        """Like `take`, for what should not wait until a pass is free. The caller runs it at once, on no core of its
        own."""
        with self._lock:
            can_begin = self._wait(self._idle_express, self._can_begin_express, timeout_s)
            batch = self._form_express() if can_begin else None
            if batch is not None:
                self.counts.count_batch(batch, batch.limits.batch_tokens_max)
            self._wake()
        return batch

    def give_back(self, batch: Batch) -> None:
        """Must be called when the pass of a batch has ended."""
        with self._lock:
            if not batch.is_express:
                self._passes_free += 1
                self._cores_free += batch.cores
                self._pass_times.end(batch, time.monotonic())
            self._wake()

    def close(self) -> None:
        """Refuses new submissions. What waits is still handed out; after that, every `take` returns None."""
        with self._lock:
            self._closed = True
            self._wake()

    def measure_throughput(self) -> float:
        """Tokens per second of the busy engine; 0 if it has not been busy for a while."""
        with self._lock:
            return self._admission.measure_throughput(time.monotonic())

    def load(self) -> Load:
        return Load(self._queue.items, self._queue.tokens)

    def measure_queue(self) -> Waiting:
        """Measures the queue for the metrics, in time proportional to the waiting flows."""
        with self._lock:
            submissions, oldest = self._queue.measure()
            return Waiting(submissions, self._queue.items, self._queue.tokens, max(0.0, time.monotonic() - oldest))

    def _find_refusal(self, submission: Submission, now: float) -> Refusal | None:
        queue, limits, admission = self._queue, self.limits, self._admission
        if self._closed:
            return Refusal("closed", "the engine is shutting down", RETRY_AFTER_MS_UNKNOWN)
        tokens, items = queue.tokens + submission.tokens, queue.items + submission.waiting
        if queue.items and (tokens > limits.queue_tokens_max or items > limits.queue_items_max):
            return Refusal("queue_full", "the engine's queue is full", admission.estimate_retry_ms(queue.tokens, now))
        if not queue.items or (tokens <= limits.batch_tokens_max and items <= limits.batch_items_max):
            admission.reset_limits()
            return None
        retry_after_ms = admission.find_retry_ms(
            submission.tokens,
            queue.tokens,
            partial(queue.estimate_work_ahead, submission),
            busy_s=self._pass_times.estimate_busy_s(now),
            left_s=math.inf if submission.deadline is None else submission.deadline - now,
            now=now,
        )
        message = "the engine cannot compute this request in time: too much work is waiting"
        return Refusal("too_late", message, retry_after_ms) if retry_after_ms else None

    def _wait(self, idle: list[threading.Condition], can_begin: Callable[[], bool], timeout_s: float | None) -> bool:
        """Returns whether a pass can begin."""
        if can_begin():
            return True
        thread = threading.Condition(self._lock)
        idle.append(thread)
        thread.wait_for(lambda: self._is_over() or can_begin(), timeout_s)
        idle.remove(thread)
        return can_begin()

    def _wake(self) -> None:
        """Wakes the latest idle thread: where passes have several cores, the helpers of its last pass are still awake.
        It takes its share and, if something is left, wakes the next."""
        if self._is_over():
            for thread in self._idle + self._idle_express:
                thread.notify()
        elif self._idle and self._can_begin():
            self._idle[-1].notify()
        elif self._idle_express and self._can_begin_express():
            self._idle_express[-1].notify()

    def _is_over(self) -> bool:
        return self._closed and not self._queue.items

    def _can_begin(self) -> bool:
        return self._queue.items > 0 and self._count_passes() > 0

    def _can_begin_express(self) -> bool:
        return not self._count_passes() and any(find_express_flows(self._queue, self._express_limits))

    def _count_passes(self) -> int:
        """How many passes could begin now."""
        if self.runs_in_turn and self._passes_free < self._passes_max:
            waiting, limits = self._queue, self.limits
            filled = max(waiting.tokens / limits.batch_tokens_max, waiting.items / limits.batch_items_max)
            if filled < QUEUED_PASS_SHARE_MIN:
                return 0
        return min(self._passes_free, self._cores_free)

    def _form(self) -> Batch:
        now = time.monotonic()
        batch = Batch(now, self.limits if self.runs_in_turn else self._limit_share())
        throughput = self._admission.throughput
        if throughput.is_known(now):
            batch.expect(self._queue, throughput.per_s)
        fill(batch, self._queue)
        if self.runs_in_turn:
            batch.cores = 0
        else:
            cores = self._cores_free // self._count_passes() if self._queue.items else self._cores_free
            batch.cores = min(cores, max(1, batch.tokens // TOKENS_PER_CORE_MIN))
        batch.others_wait = self._queue.items > 0
        self._passes_free -= 1
        self._cores_free -= batch.cores
        self._pass_times.begin(batch, self._waiting_since, now)
        return batch

    def _limit_share(self) -> SchedulerLimits:
        """The limits of one of the passes that could begin now."""
        waiting = self._queue.tokens
        if waiting <= PASS_TOKENS_MIN:
            return self.limits
        share_tokens = max(PASS_TOKENS_MIN, -(-waiting // self._count_passes()))
        return replace(self.limits, batch_tokens_max=min(share_tokens, self.limits.batch_tokens_max))

    def _form_express(self) -> Batch:
        batch = Batch(time.monotonic(), self._express_limits, is_express=True)
        fill_express(batch, self._queue)
        return batch
