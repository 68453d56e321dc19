"""The threads that run one backend, from load to close. __main__ starts a worker per device, all on one scheduler.

Each thread asks the scheduler for a batch whenever it is free, and hands the outcomes of a batch to the event loop in
one call. On a CPU there are several, so that small batches, each on a core of its own, need not wait for the slowest
core of a large one: with another process on one of two cores, a pass that is shared between them takes many times as
long. On a GPU there are two, so that one packs the next batch while the device runs the other's. What goes wrong with
one sequence is that sequence's outcome; its neighbours in the batch keep theirs.

A thread that ends with an error ends the pod (see `engine_svc.__main__`). So does a lost device: its batches are not
answered, and callers send them to another pod, as they do whenever a pod is gone.
"""

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Sequences
from concurrent.futures import Future, InvalidStateError
from typing import Any

from engine_svc.backends.backend import Backend
from engine_svc.batch import PackedBatch
from engine_svc.computing import Computed, compute
from engine_svc.duplicates import without_duplicates
from engine_svc.forming import Batch
from engine_svc.scheduler import Scheduler
from engine_svc.submission import Outcome, Part, Submission, failure
from engine_svc.warm_up import warm_up
from heddle.rpc.errors import ErrorKind, HeddleError

# Of the scheduler: blocks until there is a batch, None at its end.
Take = Callable[[], Batch | None]

# In a storm of one caller's bulks single queries of others took 16.5 ms where they took 19.3, their 99th percentile 36
# where it was 44. With 10, whatever else runs on the machine would take too much from the passes.
NICENESS = 5

log = logging.getLogger(__name__)


class Worker:
    """Stops when the scheduler is closed and empty. All attributes may be read from any thread."""

    def __init__(
        self,
        load_backend: Callable[[], Backend],
        scheduler: Scheduler,
        loop: asyncio.AbstractEventLoop,
        warm_up_batches: Iterable[Sequences[int]] = (),
        *,
        threads: int = 1,
        has_express: bool = False,
        name: str = "worker",
    ) -> None:
        """`load_backend` runs in the worker's first thread. A warm-up batch is the lengths of its sequences, in tokens.
        So many threads take batches from the scheduler and run the backend at once, and one more those that go by
        express."""
        self.loaded: Future[Backend] = Future()  # once warm, or the error of loading or warming up
        self.stopped: Future[None] = Future()  # after the last outcome, or the first error that ended a thread
        self._running: dict[Batch, float] = {}  # since when, time.monotonic
        self._last_ended_at = 0.0  # time.monotonic, of any pass
        self.consecutive_failures = 0  # batches in a row that gave not one result: the backend is beyond help
        self._load_backend = load_backend
        self._scheduler = scheduler
        self._loop = loop
        self._warm_up_batches = warm_up_batches
        self._name = name
        self._threads = threads
        self._has_express = has_express

    def start(self) -> None:
        self.loaded.set_running_or_notify_cancel()  # a starter that stops waiting cannot cancel them
        self.stopped.set_running_or_notify_cancel()
        self._started(self._run)

    @property
    def running_tokens(self) -> int:
        return sum(batch.tokens for batch in tuple(self._running))

    @property
    def running_since(self) -> float | None:
        """When the pass began that has run for longest; None while idle."""
        return min(tuple(self._running.values()), default=None)

    def _started(self, target: Callable[..., None], *arguments: Any) -> threading.Thread:
        # Daemon: a forward pass that never returns must not keep the process from exiting.
        thread = threading.Thread(target=target, args=arguments, name=self._name, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        others = [self._started(self._serve_express)] if self._has_express else []
        if others:
            give_way()
        try:
            with contextlib.closing(self._load_backend()) as backend:
                warm_up(backend, self._warm_up_batches, passes=self._threads)
                self.loaded.set_result(backend)
                self._serve_by_all(backend, others)
        except BaseException as exception:  # noqa: BLE001 - whatever it is, the pod ends
            if not self.loaded.done():
                self.loaded.set_exception(exception)
            self._fail(exception)
        else:
            with contextlib.suppress(InvalidStateError):  # another thread failed
                self.stopped.set_result(None)

    def _fail(self, exception: BaseException) -> None:
        if self.loaded.exception() is None:  # otherwise the starter is told
            log.critical("a thread of %s died", self._name, exc_info=exception)
        with contextlib.suppress(InvalidStateError):  # it is not the first to fail
            self.stopped.set_exception(exception)

    def _serve_by_all(self, backend: Backend, others: list[threading.Thread]) -> None:
        take = self._scheduler.take
        try:
            others += [self._started(self._serve, backend, take) for _ in range(self._threads - 1)]
            self._serve(backend, take)
        finally:
            for thread in others:
                thread.join()

    def _serve_express(self) -> None:
        """Started before all that give way to it, so that it and the helpers of its passes do not."""
        if self.loaded.exception() is None:
            self._serve(self.loaded.result(), self._scheduler.take_express)

    def _serve(self, backend: Backend, take: Take) -> None:
        """Never raises: the first thread must not close the backend of a lost device, which may block."""
        try:
            while (batch := take()) is not None:
                if batch.expired:
                    self._answer_expired(batch)
                self._deliver(self._outcomes(backend, batch))
        except BaseException as exception:  # noqa: BLE001 - the same
            self._fail(exception)

    def _answer_expired(self, batch: Batch) -> None:
        error = HeddleError(ErrorKind.DEADLINE_EXCEEDED, "the deadline passed while the sequence waited for the engine")
        self._deliver([(part, failure(part, error, queue_s(part, batch))) for part in batch.expired])

    def _outcomes(self, backend: Backend, batch: Batch) -> list[tuple[Part, Outcome]]:
        started_at = time.monotonic()
        self._running[batch] = started_at
        try:
            computed = compute_parts(backend, batch)
            compute_s = self._seconds_since(started_at)
        finally:
            del self._running[batch]
            self._scheduler.give_back(batch)
        if computed is None:
            return []
        self.consecutive_failures = self.consecutive_failures + 1 if computed.has_failed else 0
        outcomes, start = [], 0
        for part in batch.parts:
            stop = start + part.stop - part.start
            results, errors = computed.part(start, stop, part.submission.sequences.options)
            outcomes.append((part, Outcome(results, errors, None, queue_s(part, batch), compute_s)))
            start = stop
        return outcomes

    def _seconds_since(self, started_at: float) -> float:
        """Of a pass that ends now; without its wait for the one before it, where passes run in turn."""
        now = time.monotonic()
        began_at = max(started_at, self._last_ended_at) if self._scheduler.runs_in_turn else started_at
        self._last_ended_at = now
        return now - began_at

    def _deliver(self, outcomes: Iterable[tuple[Part, Outcome]]) -> None:
        """Encoding takes long where a submission has many rows, so it is done here, off the event loop."""
        encoded: list[tuple[Submission, Any]] = []
        for part, own in outcomes:
            outcome = part.submission.finish(part, own)
            if outcome is not None:
                encoded.append((part.submission, part.submission.encode(outcome)))
        if not encoded:
            return
        try:
            self._loop.call_soon_threadsafe(deliver, encoded)
        except RuntimeError:
            log.warning("%d outcomes have nobody to go to: the event loop is closed", len(encoded))


def give_way() -> None:
    """From now on the calling thread, and those that it starts, leave the cores to others of this process and its
    neighbours first: to the express, and to those that hand on what is computed."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # forbidden
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)


def compute_parts(backend: Backend, batch: Batch) -> Computed | None:
    """The results of the parts end to end; None if there are none. Equal sequences are computed once. Raises
    DeviceLostError."""
    if not batch.parts:
        return None
    distinct = without_duplicates(PackedBatch.of([part.sequences for part in batch.parts]))
    computed = compute(backend, distinct.batch, batch.cores)
    return computed if distinct.place_of is None else computed.take(distinct.place_of)


def queue_s(part: Part, batch: Batch) -> float:
    return batch.formed_at - part.submission.submitted_at


def deliver(encoded: Iterable[tuple[Submission, Any]]) -> None:
    """On the event loop. One receiver's bug does not cost the others their outcomes."""
    for submission, outcome in encoded:
        try:
            submission.deliver(outcome)
        except Exception:
            log.exception("the receiver of an outcome failed")
