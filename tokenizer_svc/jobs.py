"""The units of the encoder's work: a `Job` for each request, and a `Slice` for each call of the tokenizer."""

import logging
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from heddle.telemetry.logs import LogContext, log_context, log_request_id
from tokenizer_svc.text.inputs import FieldName, Input, Options
from tokenizer_svc.text.sequences import TokenSequences

OnEncoded = Callable[[int, TokenSequences], None]

log = logging.getLogger(__name__)


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
    submitted_at: float = field(default_factory=time.monotonic)
    log_context: LogContext = field(default_factory=log_context)

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
            if error.__cause__ is not None:
                with log_request_id(*self.log_context):
                    log.warning("the tokenizer failed on %s: %s", error.field, type(error.__cause__).__name__)
        try:
            self.on_encoded(start, sequences)
        except Exception:
            with log_request_id(*self.log_context):
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
