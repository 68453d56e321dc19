"""Forms batches: which of the waiting sequences the next pass computes. The scheduler calls it, under its lock.

* Classes are served strictly by priority: while smaller numbers fill every batch, larger ones wait.
* Within a class, flows take turns, each in its own order. A turn takes as many sequences as each flow of the class
  could get of what is left of the batch, and at least one. New flows join at the end. Flows whose names have the same
  prefix, such as `caller/one` and `caller/two`, form a group. A group takes turns with other flows as if it were one
  flow, and its members take turns inside it. So a caller gets one share of the engine, however many requests it sends
  at once.
* A sequence that does not fit into what is left of the budget keeps its flow's place, and other flows fill the rest.
  The flow in front is in every batch but an express one, so a flow with n others before it in the first class is in one
  of the next n + 1. In a group of m flows it may take m times as many.
* Submissions whose deadline has passed, or passes before this pass ends, are late: they leave without costing a turn.
  A pass is shortened so that a submission is not late, but not below a share of a full pass: many short passes lose
  more time than they save.

The work is proportional to the submissions and flows that leave, however many sequences they have and however many
others wait.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from engine_svc.fair_queue import FairQueue, Flow
from engine_svc.submission import Part, Submission
from heddle.admission import SHORT_PASS_SHARE

# Flows that one batch may pass over in search of sequences that fit. More would hardly fill batches better.
PASSED_OVER_MAX = 64


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """The queue's limits are for what waits, without what is running. A single sequence may exceed the tokens of a
    batch, and a single submission the tokens of the queue."""

    batch_tokens_max: int
    batch_items_max: int  # sequences
    queue_tokens_max: int
    queue_items_max: int


@dataclass(slots=True, eq=False)
class Batch:
    """The work of one pass. It has no parts if everything that waited was late."""

    formed_at: float  # time.monotonic
    limits: SchedulerLimits
    began_at: float = 0.0  # when a pass was free and something waited, time.monotonic
    tokens_per_s: float = 0.0  # throughput of a pass; 0 = unknown
    expected_s: float = 0.0  # duration of the pass when filled; 0 = unknown
    shortest_s: float = 0.0  # a deadline does not make the pass shorter
    others_wait: bool = False  # whether it left something in the queue
    parts: list[Part] = field(default_factory=list)
    late: list[Part] = field(default_factory=list)  # past the deadline, or would be at the end of the pass
    tokens: int = 0
    items: int = 0  # sequences
    cores: int = 1  # of its pass; 0 where passes run in turn
    is_express: bool = False

    @property
    def is_full(self) -> bool:
        return self.tokens >= self.limits.batch_tokens_max or self.items >= self.limits.batch_items_max

    def count_fitting(self, submission: Submission) -> int:
        """How many of the submission's waiting sequences there is room for. The first always fits into an empty batch:
        a sequence that is longer than the budget runs alone."""
        tokens, items = self.limits.batch_tokens_max - self.tokens, self.limits.batch_items_max - self.items
        return submission.count_fitting(tokens, items) or int(not self.items)

    def add(self, part: Part) -> None:
        self.parts.append(part)
        self.items += part.stop - part.start
        self.tokens += part.tokens

    def expect(self, queue: FairQueue, tokens_per_s: float) -> None:
        """Sets how long the pass takes if it is filled from the queue, at this throughput."""
        usual = queue.tokens / queue.items
        self.tokens_per_s = tokens_per_s
        tokens = min(self.limits.batch_tokens_max, queue.tokens, self.limits.batch_items_max * usual)
        self.expected_s = tokens / tokens_per_s
        self.shortest_s = SHORT_PASS_SHARE * self.expected_s

    def drop_if_late(self, submission: Submission, queue: FairQueue) -> bool:
        """Drops a submission that this pass would finish too late. Shortens the pass if that saves the submission."""
        if submission.deadline is None:
            return False
        left_s = submission.deadline - self.formed_at
        if left_s <= self.shortest_s:
            queue.remove(submission)
            self.late.append(submission.take(submission.waiting))
            return True
        if left_s < self.expected_s:
            tokens = max(1, round(left_s * self.tokens_per_s))
            self.limits = replace(self.limits, batch_tokens_max=min(tokens, self.limits.batch_tokens_max))
            self.expected_s = left_s
        return False


class TurnBudget:
    """Limit of one turn: the same for all flows of a class, and computed anew in each round of turns."""

    def __init__(self) -> None:
        self.tokens = self.items = 0
        self._priority: int | None = None
        self._turns_left = 0

    def begin_turn(self, batch: Batch, queue: FairQueue) -> None:
        priority = queue.first_priority
        if self._priority != priority or not self._turns_left:
            self._priority, self._turns_left = priority, queue.first_class_size
            self.tokens = (batch.limits.batch_tokens_max - batch.tokens) // self._turns_left
            self.items = (batch.limits.batch_items_max - batch.items) // self._turns_left
        self._turns_left -= 1


def fill(batch: Batch, queue: FairQueue) -> None:
    """Takes sequences in turns until the batch is full or nothing else fits."""
    budget = TurnBudget()
    passed_over: list[Flow] = []
    while queue and not batch.is_full and len(passed_over) < PASSED_OVER_MAX:
        flow = queue.front
        submission = flow.first
        if batch.drop_if_late(submission, queue):
            continue
        fitting = batch.count_fitting(submission)
        if fitting:
            budget.begin_turn(batch, queue)
            queue.move_to_end(flow)
            take_turn(flow, fitting, batch, queue, budget)
        else:
            passed_over.append(flow)
            queue.set_aside(flow)
    for flow in reversed(passed_over):
        queue.put_back(flow)


def take_turn(flow: Flow, fitting: int, batch: Batch, queue: FairQueue, budget: TurnBudget) -> None:
    """`fitting` is the number of sequences of the flow's first submission that the batch has room for."""
    tokens_max = min(batch.tokens + budget.tokens, batch.limits.batch_tokens_max)
    items_max = min(batch.items + budget.items, batch.limits.batch_items_max)
    count = min(fitting, max(1, flow.first.count_fitting(budget.tokens, budget.items)))
    while count > 0:
        batch.add(queue.take(flow, count))
        while flow.submissions and batch.drop_if_late(flow.first, queue):
            pass
        if not flow.submissions:
            return
        count = flow.first.count_fitting(tokens_max - batch.tokens, items_max - batch.items)


def fill_express(batch: Batch, queue: FairQueue) -> None:
    """Takes what fits of each flow that an express pass may serve."""
    for flow in list(find_express_flows(queue, batch.limits)):
        while flow.submissions and not batch.is_full:
            if batch.drop_if_late(flow.first, queue):
                continue
            count = batch.count_fitting(flow.first)
            if not count:
                break
            batch.add(queue.take(flow, count))


def find_express_flows(queue: FairQueue, limits: SchedulerLimits) -> Iterator[Flow]:
    """While a bulk flow waits: the other flows of the first class whose next sequence is short enough."""
    if not queue.bulk_flows:
        return
    for flow in islice(queue.iterate_first_class(), PASSED_OVER_MAX):
        if not queue.is_bulk(flow) and flow.first.first_tokens <= limits.batch_tokens_max:
            yield flow
