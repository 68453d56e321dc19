"""The submissions that wait: by priority, within a priority by flow, and the flows in the order of their turns. The
scheduler has one `FairQueue`. The time of each method does not depend on how much waits."""

import math
from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from engine_svc.submission import Part, Submission
from heddle.admission import WorkAhead
from heddle.turns import Turns

# While nothing waits, each submission would make its class anew. Callers may use any number of priorities.
CLASSES_KEPT_MAX = 8


@dataclass(slots=True, eq=False)
class Flow:
    """The waiting submissions of one flow, first in, first out."""

    name: str
    priority: int
    # An ordered dict, because a cancelled submission leaves from the middle.
    submissions: OrderedDict[Submission, None] = field(default_factory=OrderedDict)
    tokens: int = 0

    @property
    def first(self) -> Submission:
        return next(iter(self.submissions))


class FairQueue:
    """Holds no empty flows. Not thread-safe."""

    def __init__(self, bulk_tokens: int) -> None:
        """A flow with more tokens than `bulk_tokens` is a bulk."""
        self.items = 0  # sequences
        self.tokens = 0
        self.bulk_flows = 0
        self._bulk_tokens = bulk_tokens
        self._classes: dict[int, Turns[Flow]] = {}
        self._priorities: list[int] = []  # of the classes that are not empty, sorted

    def __bool__(self) -> bool:
        """Whether there is a flow to serve. False also while all are set aside."""
        return bool(self._priorities)

    @property
    def first_priority(self) -> int:
        return self._priorities[0]

    @property
    def first_class_size(self) -> int:
        """The number of flows in the first class."""
        return len(self._classes[self._priorities[0]])

    @property
    def front(self) -> Flow:
        """The flow whose turn it is."""
        return self._classes[self._priorities[0]].front

    def iterate_first_class(self) -> Iterator[Flow]:
        """The flows of the first class, in the order of their turns."""
        return iter(self._classes[self._priorities[0]])

    def measure(self) -> tuple[int, float]:
        """The number of submissions, and when the oldest was submitted (math.inf if there is none)."""
        flows = [flow for flows in self._classes.values() for flow in flows]
        oldest = min((flow.first.submitted_at for flow in flows), default=math.inf)
        return sum(len(flow.submissions) for flow in flows), oldest

    def is_bulk(self, flow: Flow) -> bool:
        return flow.tokens > self._bulk_tokens

    def estimate_work_ahead(self, submission: Submission) -> WorkAhead:
        """Estimates the tokens that are served before a submission if it joins the queue, which must not be empty."""
        classes = [self._classes[each] for each in self._priorities if each < submission.priority]
        higher, turns = sum(each.weight for each in classes), sum(map(len, classes))
        name, flows = submission.flow, self._classes.get(submission.priority)
        if not flows:
            return WorkAhead(higher, 0, higher, turns)
        usual = self.tokens // self.items  # a turn takes at least one sequence
        if flow := flows.get(name):
            return WorkAhead(
                higher + flows.weight_before(name, max(flow.tokens + submission.tokens, usual)), flow.tokens
            )
        first, last = flows.weight_before(name, usual), flows.weight_before(name, max(submission.tokens, usual))
        return WorkAhead(higher + last, 0, higher + first, turns + flows.turns_before(name))

    def put(self, submission: Submission) -> None:
        flow = self._find(submission)
        if flow is None:
            flow = Flow(submission.flow, submission.priority)
            self._count(flow, submission.waiting, submission.tokens)
            self._attach(flow)
        else:
            self._count(flow, submission.waiting, submission.tokens)
            self._classes[flow.priority].change_weight(flow.name, submission.tokens)
        flow.submissions[submission] = None

    def remove(self, submission: Submission) -> bool:
        """Removes what still waits of a submission. Returns False if nothing does."""
        flow = self._find(submission)
        if flow is None or submission not in flow.submissions:
            return False
        self._remove(flow, submission)
        return True

    def take(self, flow: Flow, sequences: int) -> Part:
        """Removes sequences from the start of the flow's first submission."""
        submission = flow.first
        if sequences == submission.waiting:
            self._remove(flow, submission)
            return submission.take(sequences)
        part = submission.take(sequences)
        self._count(flow, -sequences, -part.tokens)
        self._classes[flow.priority].change_weight(flow.name, -part.tokens)
        return part

    def move_to_end(self, flow: Flow) -> None:
        """The flow has had its turn: the others of its class come before it in the next round."""
        self._classes[flow.priority].move_to_end(flow.name)

    def set_aside(self, flow: Flow) -> None:
        """Takes the flow out of the turns until it is put back."""
        self._detach(flow)

    def put_back(self, flow: Flow) -> None:
        """Puts the flow in front of all others of its class."""
        self._attach(flow)
        self._classes[flow.priority].move_to_front(flow.name)

    def _find(self, submission: Submission) -> Flow | None:
        flows = self._classes.get(submission.priority)
        return None if flows is None else flows.get(submission.flow)

    def _remove(self, flow: Flow, submission: Submission) -> None:
        del flow.submissions[submission]
        self._count(flow, -submission.waiting, -submission.tokens)
        if flow.submissions:
            self._classes[flow.priority].change_weight(flow.name, -submission.tokens)
        else:
            self._detach(flow)  # with its weight

    def _count(self, flow: Flow, items: int, tokens: int) -> None:
        was_bulk = flow.tokens > self._bulk_tokens
        flow.tokens += tokens
        self.items += items
        self.tokens += tokens
        self.bulk_flows += (flow.tokens > self._bulk_tokens) - was_bulk

    def _attach(self, flow: Flow) -> None:
        flows = self._classes.get(flow.priority)
        if flows is None:
            flows = self._classes[flow.priority] = Turns()
        if not flows:
            insort(self._priorities, flow.priority)
        flows.add(flow.name, flow, flow.tokens)

    def _detach(self, flow: Flow) -> None:
        flows = self._classes[flow.priority]
        flows.remove(flow.name)
        if not flows:
            self._priorities.remove(flow.priority)
            if len(self._classes) > CLASSES_KEPT_MAX:
                del self._classes[flow.priority]
