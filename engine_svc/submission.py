"""A submission on its way through the engine. The servicer makes it, the scheduler queues it and hands it out in parts,
and a worker computes the parts. Its outcome is complete when its last part is."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from engine_svc.rows import Rows, join, missing
from engine_svc.sequences import Sequences
from heddle.telemetry.logs import LogContext


@dataclass(slots=True)
class Outcome:
    """The results of a submission, or of a part of one."""

    results: Sequence[Rows] = ()  # one for each output; empty with `error`
    errors: Sequence[tuple[int, Exception]] = ()  # ascending; sequences that failed, whose rows are zero or missing
    error: Exception | None = None  # nothing was computed
    queue_s: float = 0.0  # the longest wait of a sequence
    compute_s: float = 0.0  # of the longest pass that computed a sequence


@dataclass(frozen=True, slots=True)
class Refusal:
    """The scheduler's reason not to accept a submission."""

    reason: str  # a label of the metrics: closed, queue_full or too_late
    message: str
    retry_after_ms: int


def keep_outcome(outcome: Outcome) -> Any:
    return outcome


@dataclass(slots=True, eq=False)
class Submission:
    """Sequences of one caller, and who gets their outcome. It may be submitted once."""

    sequences: Sequences
    flow: str  # fair-share key within its priority
    # Called on the event loop, once, unless the submission was refused or cancelled.
    deliver: Callable[[Any], None]
    priority: int = 0  # smaller first
    deadline: float | None = None  # time.monotonic
    encode: Callable[[Outcome], Any] = keep_outcome  # makes what is delivered; called on the thread of the worker
    traceparent: str = ""  # trace context of the submission's span; empty if it is not recorded
    log_context: LogContext = ("", "")  # request id and trace context, for log lines
    refusal: Refusal | None = field(default=None, init=False)  # why the scheduler did not accept it
    submitted_at: float = field(default=0.0, init=False)  # time.monotonic
    taken: int = field(default=0, init=False)  # how many sequences have left the queue
    waiting: int = field(init=False)  # how many sequences wait
    tokens: int = field(init=False)  # of the sequences that wait
    _unfinished: int = field(init=False)  # sequences without an outcome
    # By the index of their first sequence. Not by their part: it would be a cycle, and keep the rows of a submission
    # until the garbage collector runs.
    _finished: list[tuple[int, Outcome]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        starts = self.sequences.starts
        self.tokens = starts.item(-1)
        self.waiting = self._unfinished = len(starts) - 1

    @property
    def first_tokens(self) -> int:
        """The length of the first sequence that waits."""
        starts = self.sequences.starts
        return starts.item(self.taken + 1) - starts.item(self.taken)

    def count_fitting(self, tokens: int, sequences: int) -> int:
        """How many of the waiting sequences, from the first, fit into so many tokens and sequences."""
        if self.tokens <= tokens:
            return min(self.waiting, sequences)
        if self.waiting == 1:
            return 0
        starts = self.sequences.starts
        last = starts.searchsorted(starts.item(self.taken) + max(tokens, 0), side="right").item() - 1
        return min(last - self.taken, sequences)

    def take(self, sequences: int) -> "Part":
        """The first of the waiting sequences, which wait no longer."""
        start, stop = self.taken, self.taken + sequences
        if sequences == self.waiting:
            tokens = self.tokens
        else:
            starts = self.sequences.starts
            tokens = starts.item(stop) - starts.item(start)
        self.taken = stop
        self.waiting -= sequences
        self.tokens -= tokens
        return Part(self, start, stop, tokens)

    def finish(self, part: "Part", outcome: Outcome) -> Outcome | None:
        """Keeps the outcome of a part. Returns the outcome of the submission with the last part, otherwise None."""
        sequences = part.stop - part.start
        if sequences == len(self.sequences.starts) - 1:
            return outcome
        with _finish_lock:
            self._finished.append((part.start, outcome))
            self._unfinished -= sequences
            if self._unfinished:
                return None
        return merge(self._finished)


# One lock for all: it is held for microseconds, and only by submissions of several parts.
_finish_lock = threading.Lock()


@dataclass(slots=True, eq=False)
class Part:
    """Adjacent sequences of a submission, which leave the queue together."""

    submission: Submission
    start: int
    stop: int
    tokens: int

    @property
    def sequences(self) -> Sequences:
        return self.submission.sequences.part(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start

    def fail(self, error: Exception, queue_s: float) -> Outcome:
        """The outcome if nothing is computed."""
        whole = self.submission.sequences
        if len(self) == len(whole):
            return Outcome(error=error, queue_s=queue_s)
        results = [missing(len(self)) for _ in whole.options.outputs]
        return Outcome(results, [(index, error) for index in range(len(self))], queue_s=queue_s)


def merge(finished: list[tuple[int, Outcome]]) -> Outcome:
    """The outcome of a submission from those of all its parts, each with the index of its first sequence. Errors of a
    part count from there."""
    finished.sort(key=itemgetter(0))
    outcomes = [outcome for _, outcome in finished]
    return Outcome(
        [join(rows) for rows in zip(*(outcome.results for outcome in outcomes), strict=True)],
        [(start + index, error) for start, outcome in finished for index, error in outcome.errors],
        queue_s=max(outcome.queue_s for outcome in outcomes),
        compute_s=max(outcome.compute_s for outcome in outcomes),
    )
