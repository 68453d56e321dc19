"""Runs one backend in threads, from loading to closing it. `engine_svc.pod` starts a worker.

Each thread takes a batch from the scheduler whenever it is free, and hands all outcomes of the batch to the event loop
in one call. On a CPU there are several threads, so that small batches, each on a core of its own, need not wait for the
slowest core of a large one: if another process uses one of two cores, a pass that both share takes many times as long.
On a GPU there are two, so that one packs the next batch while the device runs the other's.

A thread that ends with an error ends the pod (see `engine_svc.pod`). So does a lost device: its batches are not
answered, and callers send them to another pod, as they do whenever a pod is gone.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from engine_svc.backends import Backend
from engine_svc.batch_runner import run_batch, warm_up
from engine_svc.batching import Batch
from engine_svc.scheduler import Scheduler
from engine_svc.submission import Outcome, Part, Submission
from heddle.admission import to_ms
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.start_times import end_phase
from heddle.telemetry.logs import log_request_id, log_requests

# A method of the scheduler: blocks until there is a batch, and returns None at the end.
Take = Callable[[], Batch | None]

# With 5, single queries among one caller's bulks took 16.5 ms instead of 19.3, and their 99th percentile was 36 ms
# instead of 44. With 10, other processes on the machine would take too much from the passes.
NICENESS = 5

log = logging.getLogger(__name__)


class Worker:
    """Stops when the scheduler is closed and empty. All attributes may be read from any thread."""

    def __init__(
        self,
        load_backend: Callable[[], Backend],
        scheduler: Scheduler,
        loop: asyncio.AbstractEventLoop,
        warm_up_batches: Iterable[Sequence[int]] = (),
        *,
        threads: int = 1,
        has_express: bool = False,
        on_pass: Callable[[Batch, float], None] | None = None,
        name: str = "worker",
    ) -> None:
        """`load_backend` runs in the worker's first thread. A warm-up batch is the lengths of its sequences in tokens.
        `threads` run the backend at once, and with `has_express` one more runs express batches. `on_pass` is called on
        the pass's thread after each pass, with the batch and when the pass began, in time.monotonic() seconds."""
        self.loaded: Future[Backend] = Future()  # when warm, or the error of loading or warming up
        self.stopped: Future[None] = Future()  # after the last outcome, or the first error that ended a thread
        self._running: dict[Batch, float] = {}  # when each pass began, time.monotonic
        self._last_ended_at = 0.0  # the end of the latest pass, time.monotonic
        self._load_backend = load_backend
        self._scheduler = scheduler
        self._loop = loop
        self._warm_up_batches = warm_up_batches
        self._name = name
        self._threads = threads
        self._has_express = has_express
        self._on_pass = on_pass

    def start(self) -> None:
        self.loaded.set_running_or_notify_cancel()  # a caller that stops waiting cannot cancel them
        self.stopped.set_running_or_notify_cancel()
        self._start_thread(self._run)

    @property
    def running(self) -> tuple[Batch, ...]:
        """The batches that are being computed."""
        return tuple(self._running)

    @property
    def running_tokens(self) -> int:
        return sum(batch.tokens for batch in tuple(self._running))

    @property
    def running_since(self) -> float | None:
        """When the longest-running pass began; None while idle."""
        return min(tuple(self._running.values()), default=None)

    def _start_thread(self, target: Callable[..., None], *arguments: Any) -> threading.Thread:
        # Daemon: a forward pass that never returns must not keep the process from exiting.
        thread = threading.Thread(target=target, args=arguments, name=self._name, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        """The first thread: loads the backend, serves like the others, and closes the backend when all have ended."""
        others: list[threading.Thread] = []
        if self._has_express:
            # Before this thread and those that it starts lower their priority, so that express passes keep theirs.
            others.append(self._start_thread(self._serve_express))
            lower_thread_priority()
        try:
            with contextlib.closing(self._load_backend()) as backend:
                end_phase("weights")
                warm_up(backend, self._warm_up_batches)
                end_phase("warm-up")
                self.loaded.set_result(backend)
                try:
                    take = self._scheduler.take
                    others += [self._start_thread(self._serve, backend, take) for _ in range(self._threads - 1)]
                    self._serve(backend, take)
                finally:
                    for thread in others:
                        thread.join()
        except BaseException as exception:  # noqa: BLE001 - whatever it is, the pod ends
            if not self.loaded.done():
                self.loaded.set_exception(exception)
            self._fail(exception)
        else:
            with contextlib.suppress(InvalidStateError):  # another thread failed
                self.stopped.set_result(None)

    def _fail(self, exception: BaseException) -> None:
        if self.loaded.exception() is None:  # otherwise whoever started the worker reports it
            log.critical("a thread of %s died", self._name, exc_info=exception)
        with contextlib.suppress(InvalidStateError):  # another thread failed first
            self.stopped.set_exception(exception)

    def _serve_express(self) -> None:
        if self.loaded.exception() is None:
            self._serve(self.loaded.result(), self._scheduler.take_express)

    def _serve(self, backend: Backend, take: Take) -> None:
        """Never raises: the first thread must not close the backend of a lost device, which may block."""
        try:
            while (batch := take()) is not None:
                if batch.late:
                    self._deliver(fail_late(batch))
                if batch.parts:
                    self._deliver(self._run_pass(backend, batch))
                else:
                    self._scheduler.give_back(batch)
        except BaseException as exception:  # noqa: BLE001 - whatever it is, the pod ends
            self._fail(exception)

    def _run_pass(self, backend: Backend, batch: Batch) -> list[tuple[Part, Outcome]]:
        began_at = time.monotonic()
        self._running[batch] = began_at
        try:
            parts = [part.sequences for part in batch.parts]
            result = run_batch(backend, parts, batch.cores, partial(log_for, batch))
            compute_s = self._end_pass(began_at)
            self._scheduler.counts.count_pass(batch, result, compute_s)
        finally:
            del self._running[batch]
            self._scheduler.give_back(batch)
        if self._on_pass is not None:
            self._on_pass(batch, began_at)
        outcomes, start = [], 0
        for part in batch.parts:
            stop = start + part.stop - part.start
            results, errors = result.part(start, stop, part.submission.sequences.options)
            queue_s = batch.formed_at - part.submission.submitted_at
            outcomes.append((part, Outcome(results, errors, None, queue_s, compute_s)))
            start = stop
        return outcomes

    def _end_pass(self, began_at: float) -> float:
        """The seconds of a pass that ends now. Where passes run in turn, without its wait for the one before it."""
        now = time.monotonic()
        if self._scheduler.runs_in_turn:
            began_at = max(began_at, self._last_ended_at)
        self._last_ended_at = now
        return now - began_at

    def _deliver(self, outcomes: Iterable[tuple[Part, Outcome]]) -> None:
        """Encodes outcomes in this thread: for a submission of many rows that takes too long for the event loop."""
        encoded: list[tuple[Submission, Any]] = []
        for part, part_outcome in outcomes:
            submission = part.submission
            outcome = submission.finish(part, part_outcome)
            if outcome is not None:
                encoded.append((submission, submission.encode(outcome)))
        if not encoded:
            return
        try:
            self._loop.call_soon_threadsafe(deliver, encoded)
        except RuntimeError:
            log.warning("%d outcomes are lost: the event loop is closed", len(encoded))


def log_for(batch: Batch, start: int, stop: int) -> AbstractContextManager[None]:
    """Names in log lines the requests of the batch's sequences from `start` to `stop`."""
    ends = itertools.accumulate(part.stop - part.start for part in batch.parts)
    return log_requests(
        part.submission.log_context
        for part, end in zip(batch.parts, ends, strict=True)
        if end > start and end - (part.stop - part.start) < stop
    )


def lower_thread_priority() -> None:
    """Lets the calling thread, and those that it starts from now on, yield the cores to other threads: to the express
    passes, and to those that carry results."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # not permitted
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)


def fail_late(batch: Batch) -> list[tuple[Part, Outcome]]:
    """Makes the outcomes of late parts: DEADLINE_EXCEEDED, or OVERLOADED if the deadline has not passed yet."""
    outcomes = []
    for part in batch.late:
        deadline, waited_s = part.submission.deadline or 0.0, batch.formed_at - part.submission.submitted_at
        if deadline > batch.formed_at:
            message = "the engine cannot compute the sequence before its deadline"
            error = HeddleError(ErrorKind.OVERLOADED, message, retry_after_ms=to_ms(waited_s))
        else:
            message = "the deadline passed while the sequence waited for the engine"
            error = HeddleError(ErrorKind.DEADLINE_EXCEEDED, message)
        outcomes.append((part, part.fail(error, waited_s)))
    return outcomes


def deliver(encoded: Iterable[tuple[Submission, Any]]) -> None:
    """On the event loop. A bug in one receiver does not cost the others their outcomes."""
    for submission, outcome in encoded:
        try:
            submission.deliver(outcome)
        except Exception:
            with log_request_id(*submission.log_context):
                log.exception("the receiver of an outcome failed")
