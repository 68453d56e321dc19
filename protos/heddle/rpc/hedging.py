"""Hedging: finds slow pods of a `Pool`, and sends their late items to a second pod as well. Called by
`heddle.rpc.pool`.

A pod is slow in three cases: it has work but has sent nothing for three of its heartbeats (it is frozen, or the network
is cut), it has answered nothing for far longer than recent answers to items of that size took, or it reports that its
batch hangs. An item that waits in a long queue is not late as long as the pod answers other items. A slow pod gets no
new items while another is healthy. If all pods are slow, nothing is hedged.

A budget limits hedges to a share of the submitted work, as in gRPC's A6
(https://github.com/grpc/proposal/blob/master/A6-client-retries.md) and "The Tail at Scale" (Dean and Barroso, 2013).
The first answer counts, and the other pod is told to drop the item.
"""

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Generic

from heddle.rpc.errors import HeddleError
from heddle.rpc.pending import Pending
from heddle.rpc.pod import Pod
from heddle.rpc.pool_counts import PoolCounts
from heddle.rpc.stream import Item, Outcome

# Interval of checks while items are unanswered.
CHECK_S = 0.05
HEARTBEATS_MAX = 3
LATE_S_MIN = 0.2
# A batch that has run for longer than this hangs.
RUNNING_MS_MAX = 30_000
# An item is late after this many times the 99th percentile of recent answers.
LATE_FACTOR = 4
# Hedges of one item.
HEDGES_MAX = 2
# The most that the budget holds, in items of mean cost: about as much as one pod has.
BURST_ITEMS = 256
# This many of a pod's oldest items are checked.
OLDEST_ITEMS = 64

# A slower answer raises the estimate by a tenth, and any other lowers it by a 99th of that. So the estimate settles
# where one answer in a hundred takes longer.
UP = 1.1
DOWN = 1 - 0.1 / 99

log = logging.getLogger(__name__)


class Latencies:
    """Estimates the 99th percentile of recent times, for each size of item (power of two of its cost)."""

    def __init__(self) -> None:
        self._estimates = [0.0] * 65

    def record(self, cost: int, seconds: float) -> None:
        size = cost.bit_length()
        estimate = self._estimates[size]
        if seconds > estimate:
            self._estimates[size] = estimate * UP or seconds
        else:
            self._estimates[size] = estimate * DOWN

    def late_after(self, cost: int) -> float:
        """Returns seconds; infinity while no item of that size has been answered."""
        estimate = self._estimates[cost.bit_length()]
        return max(LATE_S_MIN, LATE_FACTOR * estimate) if estimate else math.inf


class Budget:
    """The cost that hedges may have. One check may overdraw it, so that all items of a frozen pod are hedged at once.
    Then nothing is hedged until later items have made up for it."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._mean_cost = 0.0
        self.level = 0.0

    def earn(self, cost: int, items: int) -> None:
        """Must be called for submitted items. `cost` is their total."""
        if not self._mean_cost:
            self._mean_cost = cost / items
            self.level = BURST_ITEMS * self._mean_cost * bool(self._share)
        self._mean_cost += items / (items + BURST_ITEMS) * (cost / items - self._mean_cost)
        self.level = min(self.level + self._share * cost, BURST_ITEMS * self._mean_cost)

    def spend(self, cost: int) -> None:
        self.level -= cost

    def give_back(self, cost: int) -> None:
        self.level += cost


class Hedging(Generic[Item, Outcome]):
    """Checks the pods of one pool every CHECK_S while items are unanswered."""

    def __init__(
        self,
        share: float,
        pods: Mapping[str, Pod[Item, Outcome]],
        counts: PoolCounts,
        *,
        on_change: Callable[[], None],
        send: Callable[[Pending[Item, Outcome]], None],
    ) -> None:
        """`on_change` is called when a pod becomes slow or recovers. `send` sends an item to a healthy pod."""
        self.latencies = Latencies()
        self.budget = Budget(share)
        self._pods = pods
        self._counts = counts
        self._on_change = on_change
        self._send = send
        self._submitted_cost = self._submitted = 0  # since the last check
        self._timer: asyncio.TimerHandle | None = None
        self._next_check = math.inf

    def watch(self, cost: int) -> None:
        """Must be called for each item that is submitted."""
        self._submitted_cost += cost
        self._submitted += 1
        if self._timer is None:
            self._next_check = math.inf
            self._check_later()

    def count_slow(self) -> int:
        """The number of pods that are slow. May be called from another thread."""
        return sum(pod.slow_at > 0 for pod in tuple(self._pods.values()))

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(CHECK_S, self._check)

    def _check(self) -> None:
        self._timer = None
        pods, now = self._pods.values(), time.monotonic()
        if self._submitted:
            self.budget.earn(self._submitted_cost, self._submitted)
            self._submitted_cost = self._submitted = 0
        if any(pod.unanswered for pod in pods):
            self._check_later()
        before = [pod for pod in pods if pod.slow_at]
        slow = self._find_slow(now)
        if before != [pod for pod in pods if pod.slow_at]:
            self._on_change()
        if self.budget.level > 0 and any(pod.healthy for pod in pods):
            for pending in [late for pod in slow for late in self._find_late(pod, now)]:
                self._hedge(pending)

    def _hedge(self, pending: Pending[Item, Outcome]) -> None:
        self._counts.hedged += 1
        self.budget.spend(pending.cost)
        if pending.span is not None:
            pending.span.add_event("hedged", {})
        self._send(pending.hedge(self._on_answer))

    def _on_answer(self, outcome: Outcome | HeddleError) -> None:
        self._counts.hedges_won += not isinstance(outcome, HeddleError)

    def _find_slow(self, now: float) -> list[Pod[Item, Outcome]]:
        """Finds slow pods, and keeps `slow_at` of all pods up to date."""
        # If the check itself is late, this process was stopped, and has not read yet what the pods sent meanwhile.
        was_stopped, self._next_check = now > self._next_check + CHECK_S, now + CHECK_S
        if was_stopped or len(self._pods) == 1:
            return []
        slow = []
        for pod in self._pods.values():
            if not pod.is_unready and self._is_slow(pod, now):
                if not pod.slow_at:
                    log.warning("%s is slow: %d unanswered items may go to others", pod.target, len(pod.unanswered))
                pod.slow_at = now
                slow.append(pod)
            elif pod.slow_at and pod.last_heard > pod.slow_at:
                log.info("%s is no longer slow", pod.target)
                pod.slow_at = 0.0
        return slow

    def _find_late(self, pod: Pod[Item, Outcome], now: float) -> list[Pending[Item, Outcome]]:
        """Returns the items of a slow pod that may be hedged: all of them if it is silent."""
        is_silent = bool(pod.unanswered) and self._is_silent(pod, now)
        return [
            pending
            for pending in pod.unanswered
            if pending.twin is None and pending.group is None and pending.hedges < HEDGES_MAX
            if is_silent or self._is_item_late(pod, pending, now)
        ]

    def _is_slow(self, pod: Pod[Item, Outcome], now: float) -> bool:
        has_work = bool(pod.unanswered)
        return pod.running_ms > RUNNING_MS_MAX or (has_work and (self._is_silent(pod, now) or self._is_late(pod, now)))

    def _is_silent(self, pod: Pod[Item, Outcome], now: float) -> bool:
        oldest = next(iter(pod.unanswered))
        return 0 < HEARTBEATS_MAX * pod.heartbeat_s < now - max(pod.last_heard, oldest.sent_at)

    def _is_late(self, pod: Pod[Item, Outcome], now: float) -> bool:
        oldest = itertools.islice(pod.unanswered, OLDEST_ITEMS)
        return any(self._is_item_late(pod, pending, now) for pending in oldest)

    def _is_item_late(self, pod: Pod[Item, Outcome], pending: Pending[Item, Outcome], now: float) -> bool:
        waited = now - max(pending.sent_at, pod.last_progress)
        return waited > LATE_S_MIN and waited > self.latencies.late_after(pending.cost)
