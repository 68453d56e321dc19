"""The threads that run one backend, from load to close. __main__ starts a lane per device, all on one scheduler.

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
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Sequences
from concurrent.futures import Future, InvalidStateError
from typing import Any

from engine_svc.backends.backend import Backend, DeviceLostError, OutOfMemoryError
from engine_svc.batch import Array, PackedBatch, Sequence, split_by_sequence
from engine_svc.scheduler import Batch, Scheduler, SchedulerLimits
from engine_svc.ticket import Outcome, Ticket
from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError

Result = list[Array] | HeddleError  # for a sequence: one array per output
# Of the scheduler: blocks until there is a batch, None at its end.
Take = Callable[[], Batch | None]

# Of a warm-up: all, and one, which most passes have where several run side by side.
CORES_OF_ONE_PASS = (0,)
CORES_OF_SEVERAL = (0, 1)

# In a storm of one caller's bulks single queries of others took 16.5 ms where they took 19.3, their 99th percentile 36
# where it was 44. With 10, whatever else runs on the machine would take too much from the passes.
NICENESS = 5

log = logging.getLogger(__name__)


class Lane:
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
        name: str = "lane",
    ) -> None:
        """`load_backend` runs in the lane's first thread. A warm-up batch is the lengths of its sequences, in tokens.
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
                warm_up(backend, self._warm_up_batches, CORES_OF_ONE_PASS if self._threads == 1 else CORES_OF_SEVERAL)
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
                self._answer_expired(batch)
                self._deliver(self._outcomes(backend, batch))
        except BaseException as exception:  # noqa: BLE001 - the same
            self._fail(exception)

    def _answer_expired(self, batch: Batch) -> None:
        error = HeddleError(ErrorKind.DEADLINE_EXCEEDED, "the deadline passed while the sequence waited for the engine")
        self._deliver([(ticket, Outcome(error, queue_s(ticket, batch), 0.0)) for ticket in batch.expired])

    def _outcomes(self, backend: Backend, batch: Batch) -> list[tuple[Ticket, Outcome]]:
        started_at = time.monotonic()
        self._running[batch] = started_at
        try:
            results = compute(backend, list(batch.tickets), batch.cores)
            compute_s = self._seconds_since(started_at)
        finally:
            del self._running[batch]
            self._scheduler.give_back(batch)
        if results:
            is_failure = all(isinstance(result, HeddleError) for result in results)
            self.consecutive_failures = self.consecutive_failures + 1 if is_failure else 0
        return [
            (ticket, outcome_of(result, queue_s(ticket, batch), compute_s))
            for tickets, result in zip(batch.tickets.values(), results, strict=True)
            for ticket in tickets
        ]

    def _seconds_since(self, started_at: float) -> float:
        """Of a pass that ends now; without its wait for the one before it, where passes run in turn."""
        now = time.monotonic()
        began_at = max(started_at, self._last_ended_at) if self._scheduler.runs_in_turn else started_at
        self._last_ended_at = now
        return now - began_at

    def _deliver(self, outcomes: list[tuple[Ticket, Outcome]]) -> None:
        if not outcomes:
            return
        try:
            self._loop.call_soon_threadsafe(deliver, outcomes)
        except RuntimeError:
            log.warning("%d outcomes have nobody to go to: the event loop is closed", len(outcomes))


def give_way() -> None:
    """From now on the calling thread, and those that it starts, leave the cores to others of this process and its
    neighbours first: to the express, and to those that hand on what is computed."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # forbidden
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)


def outcome_of(result: Result, queue_s: float, compute_s: float) -> Outcome:
    if isinstance(result, HeddleError):
        return Outcome(result, queue_s, compute_s)
    first, *more = result
    return Outcome(first, queue_s, compute_s, more)


def queue_s(ticket: Ticket, batch: Batch) -> float:
    return batch.formed_at - ticket.submitted_at


def deliver(outcomes: Iterable[tuple[Ticket, Outcome]]) -> None:
    """On the event loop. One receiver's bug does not cost the others their outcomes."""
    for ticket, outcome in outcomes:
        try:
            ticket.deliver(outcome)
        except Exception:
            log.exception("the receiver of an outcome failed")


def compute(backend: Backend, sequences: Sequences[Sequence], cores: int) -> list[Result]:
    """One result per sequence. A batch that raises is run again in halves, down to the sequences that fail alone: so
    neither one bad item nor a batch too large for the device's memory fails the rest. Raises DeviceLostError."""
    if not sequences:
        return []
    try:
        return [checked(arrays) for arrays in split_by_sequence(run(backend, sequences, cores), sequences)]
    except DeviceLostError:
        raise
    except Exception as exception:  # noqa: BLE001 - logged once it fails alone
        if len(sequences) == 1:
            return [error_of(exception, sequences[0])]
        log.warning("a batch of %d sequences failed and is run again in halves: %r", len(sequences), exception)
    # Not inside `except`: there the traceback would keep the failed attempt's memory from being freed.
    middle = len(sequences) // 2
    return compute(backend, sequences[:middle], cores) + compute(backend, sequences[middle:], cores)


def error_of(exception: Exception, sequence: Sequence) -> HeddleError:
    """What a sequence is answered that has failed alone."""
    if isinstance(exception, OutOfMemoryError):
        log.error("the device's memory is too small for a sequence of %d tokens: %s", sequence.tokens, exception)
        message = f"the engine's device has no memory for a sequence of {sequence.tokens} tokens just now"
        return HeddleError(ErrorKind.OVERLOADED, message, retry_after_ms=1000)
    return HeddleError.from_exception(exception)


def run(backend: Backend, sequences: Sequences[Sequence], cores: int = 0) -> Sequences[Array]:
    arrays = backend.run(PackedBatch.of(sequences), cores)
    expected = len(sequences) + sum([len(sequence.more_outputs) for sequence in sequences])
    if len(arrays) != expected:
        raise RuntimeError(f"the backend returned {len(arrays)} arrays for {expected} outputs")
    return arrays


def checked(arrays: list[Array]) -> Result:
    for array in arrays:
        if not tensors.are_finite(array):
            return HeddleError(ErrorKind.BAD_OUTPUT, "the model produced NaN or infinity for this input")
    return arrays


def warm_up(backend: Backend, batches: Iterable[Sequences[int]], cores: Iterable[int]) -> None:
    """Runs batches of the given lengths: a backend's first passes allocate, tune and compile, for each number of cores
    anew."""
    output = min(backend.outputs, key=lambda output: output.value)
    for lengths, share in itertools.product(batches, cores):
        run(backend, [Sequence(bytes(4 * length), output=output) for length in lengths], share)


def warm_up_batches(limits: SchedulerLimits, sequence_tokens_max: int) -> list[list[int]]:
    """From one token to the whole budget in the longest sequences, then the most sequences that a batch can hold."""
    totals = [16**exponent for exponent in range(8) if 16**exponent < limits.batch_tokens_max]
    longest = [split(total, sequence_tokens_max) for total in (*totals, limits.batch_tokens_max)]
    shortest = max(1, min(limits.batch_tokens_max // limits.batch_items_max, sequence_tokens_max))
    most = min(limits.batch_items_max, max(1, limits.batch_tokens_max // shortest))
    return [lengths[: limits.batch_items_max] for lengths in (*longest, [shortest] * most)]


def split(total: int, part_max: int) -> list[int]:
    parts, rest = divmod(total, part_max)
    return [part_max] * parts + [rest] * (rest > 0)
