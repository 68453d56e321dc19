"""Sequences on their way through the engine, and what came of them.

The servicer makes submissions, the scheduler queues them and hands out parts, a worker computes the parts. The outcome
of a submission is complete when its last part is.
"""

import threading
from collections.abc import Callable
from collections.abc import Sequence as List
from dataclasses import dataclass, field
from typing import Any

from engine_svc.batch import Sequences
from engine_svc.rows import Rows, join, missing


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of a submission, or of a part of one."""

    results: List[Rows] = ()  # for each output; empty with `error`
    errors: List[tuple[int, Exception]] = ()  # ascending; of sequences that failed, whose rows are zero or missing
    error: Exception | None = None  # nothing was computed
    queue_s: float = 0.0  # the longest that a sequence waited
    compute_s: float = 0.0  # of the longest batch that a sequence was part of


def same(outcome: Outcome) -> Any:
    return outcome


@dataclass(slots=True, eq=False)
class Submission:
    """Sequences of one caller, and where their outcome goes. May be submitted once."""

    sequences: Sequences
    flow: str  # fair-share key, of its class
    # Called on the event loop, once, unless the submission was refused or cancelled.
    deliver: Callable[[Any], None]
    priority: int = 0  # smaller first
    deadline: float | None = None  # on the clock of time.monotonic
    encode: Callable[[Outcome], Any] = same  # makes what is delivered; called on the thread of the worker
    submitted_at: float = field(default=0.0, init=False)
    taken: int = field(default=0, init=False)  # the sequences before it have left the queue
    waiting: int = field(init=False)  # how many sequences wait
    tokens: int = field(init=False)  # of those
    _missing: int = field(init=False)  # sequences without an outcome
    _finished: list[tuple[int, Outcome]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.tokens = self.sequences.tokens
        self.waiting = self._missing = len(self.sequences)

    @property
    def first_tokens(self) -> int:
        """Of the first sequence that waits."""
        starts = self.sequences.starts
        return starts.item(self.taken + 1) - starts.item(self.taken)

    def is_expired(self, now: float) -> bool:
        return self.deadline is not None and self.deadline <= now

    def fitting(self, tokens: int, sequences: int) -> int:
        """How many of the sequences that wait have no more tokens together, and are no more."""
        if self.tokens <= tokens:
            return min(self.waiting, sequences)
        starts = self.sequences.starts
        if self.waiting == 1:
            return 0
        last = starts.searchsorted(starts.item(self.taken) + max(tokens, 0), side="right").item() - 1
        return min(last - self.taken, sequences)

    def finish(self, part: "Part", outcome: Outcome) -> Outcome | None:
        """Keeps the outcome of a part. Returns that of the submission with the last one. Errors of parts count from the
        start of the part."""
        if part.stop - part.start == len(self.sequences):
            return outcome
        with _finishing:
            self._finished.append((part.start, outcome))
            self._missing -= part.stop - part.start
            if self._missing:
                return None
        return merge(self._finished)


_finishing = threading.Lock()


@dataclass(frozen=True, slots=True)
class Part:
    """Adjacent sequences of a submission, which leave the queue together."""

    submission: Submission
    start: int
    stop: int

    @property
    def sequences(self) -> Sequences:
        return self.submission.sequences.part(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start


def merge(parts: list[tuple[int, Outcome]]) -> Outcome:
    """Of one submission, each with the number of its first sequence."""
    parts.sort(key=lambda part: part[0])
    outcomes = [outcome for _, outcome in parts]
    return Outcome(
        [join(rows) for rows in zip(*(outcome.results for outcome in outcomes), strict=True)],
        [(start + index, error) for start, outcome in parts for index, error in outcome.errors],
        queue_s=max(outcome.queue_s for outcome in outcomes),
        compute_s=max(outcome.compute_s for outcome in outcomes),
    )


def failure(part: Part, error: Exception, queue_s: float) -> Outcome:
    """Of a part that was not computed."""
    if len(part) == len(part.submission.sequences):
        return Outcome(error=error, queue_s=queue_s)
    nothing = missing(len(part))
    outputs = part.submission.sequences.options.outputs
    return Outcome([nothing] * len(outputs), [(index, error) for index in range(len(part))], queue_s=queue_s)
