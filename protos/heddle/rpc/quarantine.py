"""Finds the item that crashes pods, so that items computed beside it do not fail. Called by `heddle.rpc.pool`.

All unanswered items of a crashed pod are suspects. They are divided into groups. One pod works on the groups, one after
the other, and gets nothing else while there are other pods. If it crashes too, its group is divided again. A suspect
that was alone in a group is the cause, and fails. If at most GROUPS_MAX items were unanswered at the first crash, each
group has one item, so the second crash finds the cause.
An item that has been hedged may crash one more pod: its twin carries on, unblamed, when the first pod crashes.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Generic

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.pending import Group, Pending
from heddle.rpc.pod import Pod
from heddle.rpc.pool_counts import PoolCounts
from heddle.rpc.stream import Item, Outcome

# Most crashes are not caused by an item. Then the last group waits for all groups before it.
GROUPS_MAX = 32

log = logging.getLogger(__name__)


class Quarantine(Generic[Item, Outcome]):
    """The groups of suspects that wait for a pod."""

    def __init__(
        self,
        pods: Mapping[str, Pod[Item, Outcome]],
        counts: PoolCounts,
        *,
        send: Callable[[Pending[Item, Outcome], Pod[Item, Outcome]], None],
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called when a pod begins or stops working on suspects."""
        self._pods = pods
        self._counts = counts
        self._send = send
        self._on_change = on_change
        self._waiting: deque[Group[Item, Outcome]] = deque()

    @property
    def items(self) -> list[Pending[Item, Outcome]]:
        """The waiting suspects. May be called from another thread, because tuple() copies in one step."""
        return [pending for group in tuple(self._waiting) for pending in tuple(group.items)]

    def add(self, suspects: Sequence[Pending[Item, Outcome]], *, is_second: bool) -> None:
        """Divides suspects into groups. With `is_second` they were a group when their pod crashed: a single one is the
        cause, and is answered with INTERNAL."""
        if is_second and len(suspects) == 1:
            self._counts.poisoned += 1
            request_id = suspects[0].item.context.request_id
            log.warning("pods crash on an input of request %r, which fails; lost %d", request_id, suspects[0].attempts)
            message = "two pods crashed, one after the other, while they worked on this"
            suspects[0].answer(HeddleError(ErrorKind.INTERNAL, message))
            return
        self._counts.resent += len(suspects)
        size = -(-len(suspects) // GROUPS_MAX)
        for start in range(0, len(suspects), size):
            self._waiting.append(Group(suspects[start : start + size], self.release))

    def put_back(self, group: Group[Item, Outcome]) -> None:
        """Puts back a group whose pod was lost without a crash."""
        self._counts.resent += len(group.items)
        self._waiting.appendleft(group)

    def release(self) -> None:
        """Sends the next group if no pod works on one."""
        at_work = [pod for pod in self._pods.values() if pod.group is not None]
        if any(pod.group.items and not pod.slow_at for pod in at_work if pod.group is not None):
            return
        for pod in at_work:
            if pod.group is not None and not pod.group.items:
                pod.group = None
        usable = [pod for pod in self._pods.values() if pod.healthy]
        group = self._take() if usable else None
        if group is not None:
            chosen = min(usable, key=lambda pod: (pod not in at_work, pod.unanswered_cost))
            chosen.group = group
            for pending in list(group.items):
                if not pending.answered:  # an answer to the one before may have cancelled it
                    self._send(pending, chosen)
        if at_work != [pod for pod in self._pods.values() if pod.group is not None]:
            self._on_change()

    def _take(self) -> Group[Item, Outcome] | None:
        while self._waiting:
            group = self._waiting.popleft()
            if group.items:
                return group
        return None
