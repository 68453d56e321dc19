"""Tokenizes waiting texts in batches, off the event loop. Callers, and the requests of one caller, take turns.

Each request submits a `Job`. When the worker is free, it takes a turn from each waiting job, up to a budget, encodes
that slice in one call, and delivers the results at once. So an engine starts on the first texts of a long request while
later ones are still being tokenized, and a short request behind it waits for one slice only. A request whose turn would
come too late is refused at once (`heddle.admission`).
"""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Protocol, TypeVar

from heddle.admission import Admission, WorkAhead
from heddle.rpc.deadlines import NEVER
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.telemetry.logs import log_requests
from heddle.turns import Turns
from tokenizer_svc.counts import TokenizerCounts
from tokenizer_svc.jobs import Job, OnEncoded, Slice
from tokenizer_svc.text.inputs import INPUTS, FieldName, Input, Options, measure_sizes
from tokenizer_svc.text.sequences import TokenSequences

# Measured on 2 cores: a text costs 15 us and 0.5 us per byte; a call in the executor costs 100 us more.
SLICE_BYTES_MAX = 32 * 1024  # about 15 ms of one core
TURN_BYTES = 4 * 1024
INLINE_BYTES_MAX = 512  # encoded on the event loop, as a call in the executor would take as long
WAITING_BYTES_MAX = 64 * 1024 * 1024
WORKERS = 1  # threads; the library has more of its own

T = TypeVar("T")


class BatchTokenizer(Protocol):
    """The method of `tokenizer_svc.text.tokenizer.Tokenizer` that the encoder uses."""

    def encode(self, work: Sequence[tuple[Sequence[Input], Options]]) -> list[TokenSequences]: ...


class Encoder:
    """Owns the tokenizer's thread. All methods are called on one running event loop."""

    def __init__(
        self,
        tokenizer: BatchTokenizer,
        *,
        slice_bytes_max: int = SLICE_BYTES_MAX,
        inline_bytes_max: int = INLINE_BYTES_MAX,
        waiting_bytes_max: int = WAITING_BYTES_MAX,
        counts: TokenizerCounts | None = None,
        queue_s_max: float = math.inf,
    ) -> None:
        """`queue_s_max` is the longest wait for which a request is accepted."""
        self._tokenizer = tokenizer
        self._slice_bytes_max = slice_bytes_max
        self._inline_bytes_max = inline_bytes_max
        self.waiting_bytes_max = waiting_bytes_max
        self.counts = counts or TokenizerCounts()
        self._admission = Admission(queue_s_max)
        self._jobs: Turns[Job] = Turns()  # with inputs left to take
        self._numbers = itertools.count()
        self._executor = ThreadPoolExecutor(WORKERS, thread_name_prefix="tokenizer")
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        self.waiting_bytes = 0  # UTF-8 bytes of inputs left to take, and 32 for each input
        self.running_bytes = 0

    def submit(
        self,
        inputs: Sequence[Input],
        options: Options,
        on_encoded: OnEncoded,
        *,
        field_of: FieldName = INPUTS,
        first_options: Options | None = None,
        flow: str = "",
        deadline: float = NEVER,
    ) -> Job:
        """Queues the inputs of a request. Flows take turns. Raises OVERLOADED if the queue is full or the request would
        be late, and UNAVAILABLE after `close`.

        `on_encoded(start, sequences)` gets the sequences of inputs `start` onwards, an error for each input that has
        one; the error's `field` is that input's, such as `inputs[3]`.
        """
        size_before = list(itertools.accumulate(measure_sizes(inputs), initial=0))
        size = size_before[-1]
        name = f"{flow}/{next(self._numbers)}" if flow else str(next(self._numbers))
        if self.waiting_bytes + size <= self._slice_bytes_max:
            self._admission.reset_limits()
        else:
            self._check_wait(name, size, deadline)
        self._admit(size)
        job = Job(name, inputs, options, on_encoded, field_of, size_before, first_options)
        if inputs:
            self._jobs.add(name, job, size)
        if self._worker is None or self._worker.done():
            # In its own context: its log lines belong to no single request.
            self._worker = asyncio.get_running_loop().create_task(self._work(), context=Context())
        return job

    @property
    def waiting_jobs(self) -> int:
        """Jobs with inputs left to take."""
        return len(self._jobs)

    def measure_age(self) -> float:
        """Returns how long the oldest waiting job has waited, in seconds; 0 without one. May be called from another
        thread."""
        now = time.monotonic()
        return now - min((job.submitted_at for job in self._jobs.values()), default=now)

    def cancel(self, job: Job) -> None:
        """Stops encoding and delivering the job's inputs."""
        job.cancelled = True
        self._jobs.remove(job.name)
        self.waiting_bytes -= job.drop_rest()

    async def run(self, call: Callable[[], T], size: int) -> T:
        """Runs a call on the tokenizer's thread. Its `size` bytes count as waiting, so it may raise OVERLOADED."""
        return (await self.run_each([call], size))[0]

    async def run_each(self, calls: Sequence[Callable[[], T]], size: int) -> list[T]:
        """Runs several calls, of `size` bytes in all. Other work may run between two. Raises what a call raises."""
        self._admit(size)
        results: list[T] = []
        try:
            for call in calls:
                if self._closed:
                    raise shutting_down_error()
                results.append(await asyncio.get_running_loop().run_in_executor(self._executor, call))
        finally:
            self.waiting_bytes -= size
        return results

    async def close(self) -> None:
        """Finishes the running slice, and answers waiting jobs with UNAVAILABLE."""
        self._closed = True
        rest = list(self._jobs)
        self._jobs = Turns()
        if self._worker is not None:
            await self._worker
        for job in rest:
            start = job.cursor
            self.waiting_bytes -= job.drop_rest()
            errors = [shutting_down_error() for _ in range(start, len(job.inputs))]
            job.deliver(start, TokenSequences.from_results(errors))
        self._executor.shutdown(wait=False)

    def _admit(self, size: int) -> None:
        if self._closed:
            raise shutting_down_error()
        if self.waiting_bytes and self.waiting_bytes + size > self.waiting_bytes_max:
            retry_after_ms = self._admission.estimate_retry_ms(self.waiting_bytes, time.monotonic())
            self.counts.refused["queue_full"] += 1
            raise overloaded("too much text is waiting to be tokenized", retry_after_ms)
        self.waiting_bytes += size

    def _check_wait(self, name: str, size: int, deadline: float) -> None:
        """Raises OVERLOADED for a job that would wait too long or miss its deadline."""
        now = time.monotonic()

        def estimate_work_ahead() -> WorkAhead:
            jobs = self._jobs
            first, last = jobs.weight_before(name, TURN_BYTES), jobs.weight_before(name, max(size, TURN_BYTES))
            return WorkAhead(last, 0, first, jobs.turns_before(name))

        retry_after_ms = self._admission.find_retry_ms(
            size, self.waiting_bytes, estimate_work_ahead, busy_s=0.0, left_s=deadline - now, now=now
        )
        if retry_after_ms:
            self.counts.refused["too_late"] += 1
            message = "this request cannot be tokenized in time: too much text is waiting"
            raise overloaded(message, retry_after_ms)

    async def _work(self) -> None:
        """Runs while there is work. `submit` starts it again."""
        began_at = time.monotonic()
        while self._jobs:
            slice_ = self._take()
            began = time.perf_counter()
            encoded = await self._encode(slice_)
            self.counts.encode_seconds.observe(time.perf_counter() - began)
            self.counts.slice_bytes.observe(slice_.size_bytes)
            self.running_bytes = 0
            for piece, sequences in zip(slice_.pieces, encoded, strict=True):
                if self.counts.tei:
                    self.counts.tei.count_lengths(sequences.lengths)
                piece.job.deliver(piece.start, sequences)
            if self._jobs:
                now = time.monotonic()
                self._admission.throughput.measure(slice_.size_bytes, now - began_at, now)
                began_at = now
                await asyncio.sleep(0)  # slices may run on the event loop: let other tasks run in between

    def _take(self) -> Slice:
        """Takes turns from the waiting jobs until the next input would exceed the budget."""
        starts: dict[Job, int] = {}
        size = 0
        while self._jobs:
            job = self._jobs.front
            room = self._slice_bytes_max - size
            if starts and job.next_size > room:
                break
            starts.setdefault(job, job.cursor)
            taken = job.advance(min(TURN_BYTES, room))
            size += taken
            self._jobs.move_to_end(job.name)
            if job.is_taken:
                self._jobs.remove(job.name)
            else:
                self._jobs.change_weight(job.name, -taken)
        self.waiting_bytes -= size
        self.running_bytes = size
        return Slice([piece for job, start in starts.items() for piece in job.pieces(start, job.cursor)], size)

    async def _encode(self, slice_: Slice) -> list[TokenSequences]:
        work = [(piece.inputs, piece.options) for piece in slice_.pieces]
        try:
            if slice_.size_bytes <= self._inline_bytes_max:
                return self._tokenizer.encode(work)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, self._tokenizer.encode, work)
        except Exception as exception:  # noqa: BLE001 - logged by from_exception
            with log_requests(piece.job.log_context for piece in slice_.pieces):
                error = HeddleError.from_exception(exception)
            return [
                TokenSequences.from_results([HeddleError(error.kind, error.message) for _ in inputs])
                for inputs, _ in work
            ]


def overloaded(message: str, retry_after_ms: int) -> HeddleError:
    return HeddleError(ErrorKind.OVERLOADED, message, retry_after_ms=retry_after_ms)


def shutting_down_error() -> HeddleError:
    return HeddleError(ErrorKind.UNAVAILABLE, "the tokenizer is shutting down")
