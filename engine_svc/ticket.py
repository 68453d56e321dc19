"""A sequence on its way through the engine, and what came of it.

The servicer makes tickets, the scheduler queues them, a lane delivers their outcomes.
"""

from collections.abc import Callable
from collections.abc import Sequence as Sequences
from dataclasses import dataclass, field

from engine_svc.batch import Array, Sequence


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a ticket: its arrays, in the shapes that Backend.run states, or the error."""

    result: Array | Exception  # for the sequence's `output`
    queue_s: float
    compute_s: float  # of the batch that the sequence was part of; 0 if it never ran
    more: Sequences[Array] = ()  # for its `more_outputs`


@dataclass(slots=True, eq=False)
class Ticket:
    """One sequence, and where its outcome goes. May be submitted once."""

    sequence: Sequence
    flow: str  # fair-share key, of its class
    deliver: Callable[[Outcome], None]  # called once, unless the ticket was refused or `cancel` returned true
    priority: int = 0  # smaller first
    deadline: float | None = None  # on the clock of time.monotonic
    tokens: int = field(init=False)
    submitted_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.tokens = self.sequence.tokens

    def is_expired(self, now: float) -> bool:
        return self.deadline is not None and self.deadline <= now
