"""Tokenizes waiting texts in batches, off the event loop. Callers, and the requests of one caller, take turns.

Each request submits a `Job`. When the worker is free, it takes a turn from each waiting job, up to a budget, encodes
that slice in one call, and delivers the results at once. So an engine starts on the first texts of a long request while
later ones are still being tokenized, and a short request behind it waits for one slice only.
"""

import asyncio
import itertools
import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.turns import Turns
from tokenizer_svc.text.inputs import INPUTS, FieldName, Input, Options, measure_sizes
from tokenizer_svc.text.sequences import TokenSequences

# Measured on 2 cores: a text costs 15 us and 0.5 us per byte; a call in the executor costs 100 us more.
SLICE_BYTES_MAX = 32 * 1024  # about 15 ms of one core
TURN_BYTES = 4 * 1024
INLINE_BYTES_MAX = 512  # encoded on the event loop, as a call in the executor would take as long
WAITING_BYTES_MAX = 64 * 1024 * 1024
WORKERS = 1  # threads; the library has more of its own

T = TypeVar("T")
OnEncoded = Callable[[int, TokenSequences], None]

log = logging.getLogger(__name__)


class BatchTokenizer(Protocol):
    """The method of `tokenizer_svc.text.tokenizer.Tokenizer` that the encoder uses."""

    def encode(self, work: Sequence[tuple[Sequence[Input], Options]]) -> list[TokenSequences]: ...


@dataclass(slots=True, eq=False)
class Job:
    """The inputs of one request. `on_encoded(start, sequences)` is called on the loop, in order, until all are done."""

    name: str  # in the order of turns
    inputs: Sequence[Input]
    options: Options
    on_encoded: OnEncoded
    field_of: FieldName
    size_before: Sequence[int]  # [inputs + 1]: bytes of the inputs before each
    first_options: Options | None = None  # for the first input, if its options differ
    cursor: int = 0  # the next input to take
    cancelled: bool = False

    @property
    def is_taken(self) -> bool:
        return self.cursor == len(self.inputs)

    @property
    def next_size(self) -> int:
        return self.size_before[self.cursor + 1] - self.size_before[self.cursor]

    def pieces(self, start: int, end: int) -> "list[Piece]":
        """Divides the inputs from `start` to `end` into ranges with the same options."""
        if start or self.first_options is None:
            return [Piece(self, start, self.inputs[start:end], self.options)]
        first = Piece(self, 0, self.inputs[:1], self.first_options)
        return [first, *([Piece(self, 1, self.inputs[1:end], self.options)] if end > 1 else [])]

    def advance(self, budget: int) -> int:
        """Takes inputs up to the budget, at least one. Returns their size in bytes."""
        before = self.size_before[self.cursor]
        fit = bisect_right(self.size_before, before + budget, lo=self.cursor + 1) - 1
        self.cursor = max(fit, self.cursor + 1)
        return self.size_before[self.cursor] - before

    def drop_rest(self) -> int:
        """Drops the inputs that were not taken. Returns their size in bytes."""
        size = self.size_before[-1] - self.size_before[self.cursor]
        self.cursor = len(self.inputs)
        return size

    def deliver(self, start: int, sequences: TokenSequences) -> None:
        if self.cancelled:
            return
        for index, error in sequences.errors.items():
            error.field = self.field_of(start + index)
        try:
            self.on_encoded(start, sequences)
        except Exception:
            log.exception("the callback for tokens failed")


class Piece(NamedTuple):
    """A range of a job's inputs with the same options."""

    job: Job
    start: int
    inputs: Sequence[Input]
    options: Options


@dataclass(slots=True)
class Slice:
    """The inputs that one call encodes."""

    pieces: list[Piece]
    size_bytes: int


class Encoder:
    """Owns the tokenizer's thread. All methods are called on one running event loop."""

    def __init__(
        self,
        tokenizer: BatchTokenizer,
        *,
        slice_bytes_max: int = SLICE_BYTES_MAX,
        inline_bytes_max: int = INLINE_BYTES_MAX,
        waiting_bytes_max: int = WAITING_BYTES_MAX,
    ) -> None:
        self._tokenizer = tokenizer
        self._slice_bytes_max = slice_bytes_max
        self._inline_bytes_max = inline_bytes_max
        self._waiting_bytes_max = waiting_bytes_max
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
    ) -> Job:
        """Queues the inputs of a request. Flows take turns. Raises OVERLOADED if too much is waiting, and UNAVAILABLE
        after `close`.

        `on_encoded(start, sequences)` gets the sequences of inputs `start` onwards, an error for each input that has
        one; the error's `field` is that input's, such as `inputs[3]`.
        """
        size_before = list(itertools.accumulate(measure_sizes(inputs), initial=0))
        self._admit(size_before[-1])
        name = f"{flow}/{next(self._numbers)}" if flow else str(next(self._numbers))
        job = Job(name, inputs, options, on_encoded, field_of, size_before, first_options)
        if inputs:
            self._jobs.add(name, job)
        if self._worker is None or self._worker.done():
            # In its own context: its log lines belong to no single request.
            self._worker = asyncio.get_running_loop().create_task(self._work(), context=Context())
        return job

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
        if self.waiting_bytes and self.waiting_bytes + size > self._waiting_bytes_max:
            raise HeddleError(ErrorKind.OVERLOADED, "too much text is waiting to be tokenized", retry_after_ms=1000)
        self.waiting_bytes += size

    async def _work(self) -> None:
        """Runs while there is work. `submit` starts it again."""
        while self._jobs:
            slice_ = self._take()
            encoded = await self._encode(slice_)
            self.running_bytes = 0
            for piece, sequences in zip(slice_.pieces, encoded, strict=True):
                piece.job.deliver(piece.start, sequences)
            if self._jobs:
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
            size += job.advance(min(TURN_BYTES, room))
            self._jobs.move_to_end(job.name)
            if job.is_taken:
                self._jobs.remove(job.name)
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
            error = HeddleError.from_exception(exception)
            return [
                TokenSequences.from_results([HeddleError(error.kind, error.message) for _ in inputs])
                for inputs, _ in work
            ]


def shutting_down_error() -> HeddleError:
    return HeddleError(ErrorKind.UNAVAILABLE, "the tokenizer is shutting down")
