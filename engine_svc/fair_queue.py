"""The submissions that wait: by priority, within that by flow, and the flows in the order of their turns.

The scheduler has one `FairQueue`, and decides what leaves it. Whatever waits, each method takes the same time.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from engine_svc.submission import Part, Submission
from heddle.turns import Turns


@dataclass(slots=True, eq=False)
class Flow:
    """The waiting submissions of one flow, first in first out. An ordered dict, because a cancelled one leaves from the
    middle."""

    name: str
    priority: int
    submissions: OrderedDict[Submission, None] = field(default_factory=OrderedDict)
    tokens: int = 0

    @property
    def first(self) -> Submission:
        return next(iter(self.submissions))


class FairQueue:
    """None of its flows and classes is empty. Not thread-safe."""

    def __init__(self, bulk_tokens: int) -> None:
        """A flow with more than so many tokens is a bulk."""
        self.items = 0  # sequences
        self.tokens = 0
        self.bulks = 0
        self._bulk_tokens = bulk_tokens
        self._classes: dict[int, Turns[Flow]] = {}
        self._priorities: list[int] = []  # of the classes, sorted

    def __bool__(self) -> bool:
        return bool(self._priorities)

    @property
    def front(self) -> Flow:
        """The flow whose turn it is."""
        return self._classes[self._priorities[0]].front

    @property
    def first_priority(self) -> int:
        return self._priorities[0]

    @property
    def first_class_size(self) -> int:
        """How many flows the first class has."""
        return len(self._classes[self._priorities[0]])

    def of_first_class(self) -> Iterator[Flow]:
        """The flows of the first class, in the order of their turns."""
        return iter(self._classes[self._priorities[0]])

    def is_bulk(self, flow: Flow) -> bool:
        return flow.tokens > self._bulk_tokens

    def put(self, submission: Submission) -> None:
        flow = self._find(submission)
        if flow is None:
            flow = Flow(submission.flow, submission.priority)
            self._attach(flow)
        flow.submissions[submission] = None
        self._count(flow, submission.waiting, submission.tokens)

    def remove(self, submission: Submission) -> bool:
        """Removes what still waits of a submission. False if nothing does."""
        flow = self._find(submission)
        if flow is None or submission not in flow.submissions:
            return False
        self._remove(flow, submission)
        return True

    def take(self, flow: Flow, sequences: int) -> Part:
        """Removes the first sequences of the flow, all from its first submission."""
        submission = flow.first
        start, stop = submission.taken, submission.taken + sequences
        if sequences == submission.waiting:
            self._remove(flow, submission)
        else:
            starts = submission.sequences.starts
            tokens = starts.item(stop) - starts.item(start)
            submission.tokens -= tokens
            self._count(flow, -sequences, -tokens)
        submission.taken = stop
        submission.waiting -= sequences
        return Part(submission, start, stop)

    def move_to_end(self, flow: Flow) -> None:
        """Its turn has come: the others of its class are before it in the next round."""
        self._classes[flow.priority].move_to_end(flow.name)

    def set_aside(self, flow: Flow) -> None:
        """Others are in front, until it is put back."""
        self._detach(flow)

    def put_back(self, flow: Flow) -> None:
        """Puts the flow in front of all others of its class."""
        self._attach(flow)
        self._classes[flow.priority].move_to_front(flow.name)

    def _find(self, submission: Submission) -> Flow | None:
        flows = self._classes.get(submission.priority)
        return flows.get(submission.flow) if flows else None

    def _remove(self, flow: Flow, submission: Submission) -> None:
        del flow.submissions[submission]
        self._count(flow, -submission.waiting, -submission.tokens)
        if not flow.submissions:
            self._detach(flow)

    def _count(self, flow: Flow, items: int, tokens: int) -> None:
        was_bulk = self.is_bulk(flow)
        flow.tokens += tokens
        self.items += items
        self.tokens += tokens
        self.bulks += self.is_bulk(flow) - was_bulk

    def _attach(self, flow: Flow) -> None:
        if flow.priority not in self._classes:
            self._classes[flow.priority] = Turns()
            insort(self._priorities, flow.priority)
        self._classes[flow.priority].add(flow.name, flow)

    def _detach(self, flow: Flow) -> None:
        flows = self._classes[flow.priority]
        flows.remove(flow.name)
        if not flows:
            del self._classes[flow.priority]
            self._priorities.remove(flow.priority)
