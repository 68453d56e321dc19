"""An item of a `Pool` without an answer. A `Pod` takes it; if that pod is lost, the pool gives it to another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.stream import Item, Outcome, Reply
from heddle.telemetry.tracing import Span

if TYPE_CHECKING:
    from heddle.rpc.pod import Pod

# Errors of a pod, not of the item: while another pod works on it, that one's answer counts.
KINDS_OF_POD = frozenset({ErrorKind.OVERLOADED, ErrorKind.UNAVAILABLE, ErrorKind.CANCELLED})


@dataclass(slots=True, eq=False)
class Pending(Generic[Item, Outcome]):
    """An item that is hedged has a twin: the same item at another pod. The first answer of the two is the answer."""

    item: Item
    deadline: float
    reply: Reply[Outcome]
    size: int  # in bytes
    cost: int
    id: int = 0  # of the item, at its current pod
    attempts: int = 0  # pods it was lost with
    answered: bool = False
    pod: "Pod[Item, Outcome] | None" = None
    sent_at: float = 0.0  # time.monotonic
    hedges: int = 0
    twin: "Pending[Item, Outcome] | None" = None
    group: "Group[Item, Outcome] | None" = None  # if it may have crashed a pod
    was_refused: bool = False
    span: Span | None = None  # if the item's trace is recorded

    def answer(self, outcome: Outcome | HeddleError) -> None:
        if self.answered:
            return
        if self.twin is not None:
            if isinstance(outcome, HeddleError) and outcome.kind in KINDS_OF_POD and self.leave_to_twin():
                return
            self.twin.withdraw()
        self.answered = True
        if self.group is not None:
            self.group.leave(self)
        self.reply(outcome)

    def withdraw(self) -> None:
        """Ends it without an answer, at its pod and at that of its twin."""
        if self.pod is not None:
            self.pod.cancel(self)
        self.answered = True
        if self.group is not None:
            self.group.leave(self)
        twin, self.twin = self.twin, None
        if twin is not None:
            twin.withdraw()

    def hedge(self, on_answer: Callable[[Outcome | HeddleError], None]) -> "Pending[Item, Outcome]":
        """Makes the twin, for another pod. `on_answer` gets its outcome first, if that comes first."""

        def reply(outcome: Outcome | HeddleError) -> None:
            on_answer(outcome)
            self.reply(outcome)

        self.hedges += 1
        self.twin = replace(self, reply=reply, twin=self, pod=None)
        return self.twin

    def leave_to_twin(self) -> bool:
        """Returns whether another pod works on the item. This one is then over, but still leads to its twin."""
        twin = self.twin
        if twin is None or twin.answered:
            return False
        twin.twin = None
        twin.attempts = max(twin.attempts, self.attempts)
        self.answered = True
        return True


class Group(Generic[Item, Outcome]):
    """Items that are sent to one pod together, see `heddle.rpc.quarantine`."""

    def __init__(self, items: Sequence[Pending[Item, Outcome]], on_end: Callable[[], None]) -> None:
        """`on_end` is called when the last item has been answered or withdrawn."""
        self.items = dict.fromkeys(items)
        self._on_end = on_end
        for pending in items:
            pending.group = self

    def leave(self, pending: Pending[Item, Outcome]) -> None:
        pending.group = None
        self.items.pop(pending, None)
        if not self.items:
            self._on_end()


class PodOwner(Protocol[Item, Outcome]):
    """What a pod tells its pool."""

    def pod_changed(self) -> None: ...
    def pod_lost(
        self,
        pod: "Pod[Item, Outcome]",
        unanswered: list[Pending[Item, Outcome]],
        suspects: list[Pending[Item, Outcome]],
    ) -> None:
        """`suspects` are those of the unanswered that may have crashed the pod."""

    def pod_answered(self, pending: Pending[Item, Outcome], seconds: float) -> None:
        """`seconds` have passed since the item was sent."""

    def pod_refused(self, pending: Pending[Item, Outcome], error: HeddleError) -> None:
        """Must answer the item, or send it to another pod."""
