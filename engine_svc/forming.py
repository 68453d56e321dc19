"""A batch while the scheduler forms it: how much it may hold, and how much of that a turn may take."""

from dataclasses import dataclass, field

from engine_svc.fair_queue import FairQueue
from engine_svc.submission import Part, Submission


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """The queue's are limits of what waits, beyond what is running. A single sequence may exceed the batch's in tokens,
    a single submission the queue's."""

    batch_tokens_max: int
    batch_items_max: int  # sequences
    queue_tokens_max: int
    queue_items_max: int


@dataclass(slots=True, eq=False)
class Batch:
    """What one forward is to compute, and for whom. Has no parts if all that was found had expired."""

    formed_at: float  # time.monotonic
    parts: list[Part] = field(default_factory=list)
    expired: list[Part] = field(default_factory=list)
    tokens: int = 0
    items: int = 0  # sequences
    cores: int = 1  # that its pass has; 0 where passes run in turn
    is_express: bool = False

    def is_full(self, limits: SchedulerLimits) -> bool:
        return self.tokens >= limits.batch_tokens_max or self.items >= limits.batch_items_max

    def fitting(self, submission: Submission, limits: SchedulerLimits) -> int:
        """How many of its waiting sequences fit. The first always does: one that is longer than the budget runs
        alone."""
        room = limits.batch_tokens_max - self.tokens, limits.batch_items_max - self.items
        return submission.fitting(*room) or int(not self.items)

    def add(self, part: Part, tokens: int) -> None:
        self.parts.append(part)
        self.items += part.stop - part.start
        self.tokens += tokens


@dataclass(slots=True)
class Share:
    """What a turn may take: the same for all flows of a class, and anew in each round of turns."""

    limits: SchedulerLimits
    priority: int | None = None
    turns: int = 0  # until the round is over
    tokens: int = 0
    items: int = 0

    def begin_turn(self, batch: Batch, queue: FairQueue) -> None:
        if self.priority != queue.first_priority or not self.turns:
            self.priority, self.turns = queue.first_priority, queue.first_class_size
            self.tokens = (self.limits.batch_tokens_max - batch.tokens) // self.turns
            self.items = (self.limits.batch_items_max - batch.items) // self.turns
        self.turns -= 1
