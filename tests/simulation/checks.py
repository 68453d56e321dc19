"""What must hold in every run, however pods and callers behave. `Checks` collects the violations.

* Each hop answers an item exactly once, unless its caller cancels it. The hops are the callers' pools, the tokenizer
  pods, their pools and the engine pods. An error must be one that the run explains, and come in time.
* Each answer is the right one for its inputs.
* No queue and no batch exceeds its limits, no more passes run than allowed, and no two passes share a core.
* A flow that waits at the best priority gets its turn within a bound, see `WatchedScheduler`.
* In the end, all counters of items, bytes and tokens are 0.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic

from engine_svc.batching import Batch, SchedulerLimits
from engine_svc.scheduler import EXPRESS_TOKENS_MAX, Scheduler
from engine_svc.submission import Submission
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.stream import Cancel, Item, LargeOutcome, Outcome, ServerReply, ServerSubmit
from tests.simulation.virtual_time import PROCESS, Process

# A hop may give up this early: deadlines travel in whole milliseconds, and each hop rounds down.
EARLY_S = 0.005
# A hop may answer this late: one alarm serves several items.
LATE_S = 0.1


class Checks:
    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.excused: set[ErrorKind] = set()  # errors that are allowed in this run
        self.hops: list[Hop[Any, Any]] = []

    def fail(self, violation: str) -> None:
        self.violations.append(violation)

    def all_zero(self, what: str, found: tuple[int, ...]) -> None:
        """Fails unless all are 0."""
        if any(found):
            self.fail(f"{what} is not 0 but {found}")

    def unanswered(self, process: Process | None = None) -> list[str]:
        """Describes the items that were never answered, in one process or in all that are alive."""
        return [
            f"{hop.name} never answered an item that came at {asked.at:.3f}"
            for hop in self.hops
            for asked in hop.asked
            if process in (None, asked.process) and asked.process.alive
            if not (asked.answers or asked.is_cancelled)
        ]


@dataclass(slots=True, eq=False)
class Asked:
    """One item that a hop was given."""

    process: Process
    at: float
    deadline: float
    answers: int = 0
    is_cancelled: bool = False


@dataclass(eq=False)
class Hop(Generic[Item, Outcome]):
    """Wraps `submit` of a hop, and checks its answers."""

    name: str
    hop: ServerSubmit[Item, Outcome]
    checks: Checks
    is_punctual: bool = False  # must answer when a deadline passes
    answers_cancelled: bool = False  # may answer a cancelled item that was already running
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.checks.hops.append(self)

    def submit(self, item: Item, deadline: float, reply: ServerReply[Outcome]) -> Cancel:
        asked = Asked(PROCESS.get(), self.checks.now(), deadline)
        self.asked.append(asked)

        def answer(outcome: Outcome | LargeOutcome[Outcome] | HeddleError) -> None:
            asked.answers += 1
            if asked.answers > 1:
                self.checks.fail(f"{self.name} answered an item {asked.answers} times")
            if asked.is_cancelled and not self.answers_cancelled:
                self.checks.fail(f"{self.name} answered an item that was cancelled")
            if self.is_punctual and self.checks.now() > deadline + LATE_S:
                self.checks.fail(f"{self.name} answered {self.checks.now() - deadline:.3f} s after the deadline")
            if isinstance(outcome, HeddleError):
                self._check_error(outcome, asked)
            reply(outcome)

        cancel = self.hop(item, deadline, answer)

        def withdraw() -> None:
            asked.is_cancelled = asked.is_cancelled or not asked.answers
            cancel()

        return withdraw

    def _check_error(self, error: HeddleError, asked: Asked) -> None:
        excused = self.checks.excused
        self.checks.counts[error.kind.name] += 1
        if asked.deadline < math.inf:
            excused = excused | {ErrorKind.OVERLOADED}  # it could not be done in its time
        if self.checks.now() >= asked.deadline - EARLY_S:
            excused = excused | {ErrorKind.DEADLINE_EXCEEDED, ErrorKind.UNAVAILABLE}
        if error.kind not in excused:
            self.checks.fail(f"{self.name} answered {error.kind.name}: {error}")


@dataclass(slots=True)
class Waiting:
    """The waiting submissions of one flow."""

    submissions: dict[Submission, int] = field(default_factory=dict)  # and how many of its sequences have run
    passed_over: int = 0  # consecutive batches without it, while it had the best priority
    bound: int = 1


class WatchedScheduler(Scheduler):
    """Records independently what goes in and out, and checks limits and turns.

    A flow with the best priority must be in one of the next g * m regular batches. g is the largest number of groups
    with that priority meanwhile, and m the largest number of flows in one of them: each batch takes something of the
    first flow of the first group, the group then goes to the end, and next time its next flow is first.
    """

    def __init__(
        self, limits: SchedulerLimits, checks: Checks, name: str, *, passes: int, cores: int, runs_in_turn: bool
    ) -> None:
        super().__init__(limits, passes=passes, cores=cores, runs_in_turn=runs_in_turn)
        self.limits = limits
        self.busy_s = 0.0  # of all passes
        self._checks = checks
        self._name = name
        self._passes_most, self._cores_most = (passes, 0) if runs_in_turn else (min(passes, cores), cores)
        self._running: list[Batch] = []
        self._flows: dict[tuple[int, str], Waiting] = {}

    def submit(self, submissions: Iterable[Submission]) -> list[Submission]:
        submissions = list(submissions)
        refused = super().submit(submissions)
        for submission in submissions:
            if submission not in refused:
                flow = self._flows.setdefault((submission.priority, submission.flow), Waiting())
                flow.submissions[submission] = 0
        self._check_queue()
        return refused

    def cancel(self, submission: Submission) -> bool:
        was_waiting = super().cancel(submission)
        if was_waiting != self._forget(submission):
            self._checks.fail(f"{self._name} gave the wrong result of a cancellation")
        return was_waiting

    def take(self, timeout_s: float | None = None) -> Batch | None:
        batch = super().take(timeout_s)
        if batch is not None:
            self._running.append(batch)
            self._check_resources()
            self._check_turns(batch)
            self._check(batch, self.limits.batch_tokens_max)
        return batch

    def take_express(self, timeout_s: float | None = None) -> Batch | None:
        batch = super().take_express(timeout_s)
        if batch is not None:
            self._check(batch, min(EXPRESS_TOKENS_MAX, self.limits.batch_tokens_max))
        return batch

    def give_back(self, batch: Batch) -> None:
        self.busy_s += self._checks.now() - batch.formed_at
        if not batch.is_express:
            self._running.remove(batch)
        super().give_back(batch)

    def check_at_rest(self) -> None:
        self._checks.all_zero(f"{self._name}'s queue", (*self.load(), len(self._flows), len(self._running)))

    def _check(self, batch: Batch, tokens_max: int) -> None:
        self._checks.counts["express passes" if batch.is_express else "passes"] += 1
        self._checks.counts["parts that expired"] += len(batch.late)
        tokens, items = 0, 0
        for part in batch.parts:
            tokens += part.sequences.tokens
            items += len(part)
            self._leave(part.submission, part.start, part.stop)
        for part in batch.late:
            if not part.submission.deadline or part.submission.deadline > batch.formed_at + batch.shortest_s:
                self._checks.fail(f"{self._name} gave up a submission that could have been done in time")
            self._forget(part.submission)
        self._checks.counts["tokens"] += tokens
        if items > self.limits.batch_items_max or (tokens > tokens_max and items > 1):
            self._checks.fail(f"{self._name} ran a batch of {items} sequences and {tokens} tokens")

    def _check_queue(self) -> None:
        """An empty queue accepts a submission of any size."""
        waiting = [(one, left) for flow in self._flows.values() for one, left in flow.submissions.items()]
        items = sum(len(submission.sequences) - left for submission, left in waiting)
        tokens = sum(int(submission.sequences.lengths[left:].sum()) for submission, left in waiting)
        is_over = items > self.limits.queue_items_max or tokens > self.limits.queue_tokens_max
        if is_over and len(waiting) > 1:
            self._checks.fail(f"{self._name} accepted {items} sequences and {tokens} tokens into its queue")

    def _check_resources(self) -> None:
        cores = sum(batch.cores for batch in self._running)
        if len(self._running) > self._passes_most or cores > self._cores_most:
            self._checks.fail(f"{self._name} ran {len(self._running)} passes at once on {cores} cores")

    def _check_turns(self, batch: Batch) -> None:
        """Must run before `_check`, which removes what the batch took."""
        first = min(priority for priority, _ in self._flows)
        groups: dict[str, int] = {}
        for priority, name in self._flows:
            if priority == first:
                group = name.partition("/")[0]
                groups[group] = groups.get(group, 0) + 1
        bound = len(groups) * max(groups.values())
        served = {part.submission for part in (*batch.parts, *batch.late)}
        for (priority, name), flow in self._flows.items():
            if priority != first:
                continue
            if not served.isdisjoint(flow.submissions):
                flow.passed_over = flow.bound = 0
                continue
            flow.passed_over += 1
            flow.bound = max(flow.bound, bound)
            if flow.passed_over > flow.bound:
                self._checks.fail(f"{self._name} passed over {name} {flow.passed_over} times, more than {flow.bound}")

    def _leave(self, submission: Submission, start: int, stop: int) -> None:
        flow = self._flows.get((submission.priority, submission.flow))
        if flow is None or flow.submissions.get(submission, math.nan) != start:
            self._checks.fail(f"{self._name} ran sequences {start} to {stop} out of turn")
        elif stop == len(submission.sequences):
            self._forget(submission)
        else:
            flow.submissions[submission] = stop

    def _forget(self, submission: Submission) -> bool:
        """Returns whether any of it was waiting."""
        key = submission.priority, submission.flow
        flow = self._flows.get(key)
        was_waiting = flow is not None and flow.submissions.pop(submission, None) is not None
        if flow is not None and not flow.submissions:
            del self._flows[key]
        return was_waiting
