"""The counts behind the engine's metrics: plain numbers. The scheduler, the workers and the servicer add to them, and
`engine_svc.metrics` reads them."""

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heddle.telemetry.metrics import Distribution

if TYPE_CHECKING:
    from engine_svc.batch_runner import BatchResult
    from engine_svc.batching import Batch

# Whole numbers, as what they are compared with: with floats it takes twice as long.
SEQUENCES_BUCKETS = tuple(2**exponent for exponent in range(13))  # 1 to 4,096
TOKENS_BUCKETS = tuple(2**exponent for exponent in range(21))  # 1 to about a million
FILL_BUCKETS = tuple(tenth / 10 for tenth in range(1, 11))


@dataclass(slots=True, eq=False)
class EngineCounts:
    # Added to on the event loop.
    # By outcome: ok, cancelled, or the kind of the error in lower case.
    submissions: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    submission_seconds: Distribution = field(default_factory=Distribution)
    # Added to under the scheduler's lock.
    refused: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # submissions by reason
    cancelled_sequences: int = 0
    expired_sequences: int = 0
    queue_seconds: Distribution = field(default_factory=Distribution)
    batch_tokens: Distribution = field(default_factory=lambda: Distribution(TOKENS_BUCKETS))
    batch_sequences: Distribution = field(default_factory=lambda: Distribution(SEQUENCES_BUCKETS))
    batch_fill: Distribution = field(default_factory=lambda: Distribution(FILL_BUCKETS))
    # Added to by `count_pass`.
    pass_seconds: dict[str, Distribution] = field(default_factory=lambda: defaultdict(Distribution))  # by kind
    sequences: int = 0
    tokens: int = 0
    duplicate_sequences: int = 0
    duplicate_tokens: int = 0
    halved_batches: int = 0
    failed_sequences: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # by kind of error
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count_batch(self, batch: "Batch", tokens_max: int) -> None:
        """Counts a batch that has just been formed. `tokens_max` is the budget of a full batch."""
        for part in batch.late:
            self.expired_sequences += len(part)
        if not batch.parts:
            return
        for part in batch.parts:
            self.queue_seconds.observe(batch.formed_at - part.submission.submitted_at)
        self.batch_tokens.observe(batch.tokens)
        self.batch_sequences.observe(batch.items)
        self.batch_fill.observe(min(1.0, max(batch.tokens / tokens_max, batch.items / batch.limits.batch_items_max)))

    def count_pass(self, batch: "Batch", result: "BatchResult", seconds: float) -> None:
        """Counts a pass that has ended. The workers' threads call this."""
        with self._lock:
            self.pass_seconds["express" if batch.is_express else "normal"].observe(seconds)
            self.sequences += batch.items
            self.tokens += batch.tokens
            self.duplicate_sequences += result.duplicate_sequences
            self.duplicate_tokens += result.duplicate_tokens
            self.halved_batches += result.halvings
            for error in result.errors.values():
                self.failed_sequences[error.kind.name.lower()] += 1
