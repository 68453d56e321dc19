"""All pods of one kind: picks one for each item, and moves items on when a pod drains or dies.

The gateway has a pool of tokenizer pods for each model, a tokenizer pod has a pool of engine pods. Inference is
idempotent, so an item that got no answer is simply sent again, elsewhere.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from heddle.rpc.balancing import pick
from heddle.rpc.coalescer import CoalescerFull
from heddle.rpc.credentials import PLAINTEXT, Access
from heddle.rpc.deadlines import NEVER, Alarm, deadline_exceeded
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.hedging import Hedging
from heddle.rpc.message_bytes import check_size
from heddle.rpc.pending import Pending
from heddle.rpc.pod import Pod
from heddle.rpc.pool_counts import PoolCounts, count_states
from heddle.rpc.quarantine import Quarantine
from heddle.rpc.refusals import explain_absence
from heddle.rpc.stream import Cancel, Item, Outcome, Reply, StreamProtocol, nothing_to_cancel
from heddle.rpc.targets import DNS_INTERVAL_S, check_targets, has_names, resolve
from heddle.rpc.traced_submit import end_on_cancel, end_on_reply, start_call
from heddle.telemetry.tracing import Tracing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolLimits:
    # An item fails after it was lost with this many pods. For crashes, see heddle.rpc.quarantine.
    attempts_max: int = 3
    # Work for hedges, as a share of the work submitted (see heddle.rpc.hedging); 0: no item is sent to a second pod.
    hedge_share: float = 0.05
    # How long an item waits while no pod is available. A pod that restarts is back within that time.
    no_pod_s_max: float = 10.0
    # Items that may wait for a pod.
    stranded_items_max: int = 4096


class Pool(Generic[Item, Outcome]):
    """Spreads items over pods. `submit` is a `Submit` (see heddle.rpc.stream). Used on one event loop."""

    def __init__(
        self,
        targets: tuple[str, ...],
        protocol: StreamProtocol[Item, Outcome],
        *,
        limits: PoolLimits | None = None,
        access: Access = PLAINTEXT,
        on_change: Callable[[bool], None] = lambda ready: None,
        tracing: Tracing | None = None,
    ) -> None:
        """`on_change` is called when the pool becomes ready (some pod takes items) and when it ceases to be. Raises
        ValueError for an invalid target."""
        check_targets(*targets)
        self._targets = targets
        self._protocol = protocol
        self._limits = limits or PoolLimits()
        self._access = access
        self._on_change = on_change
        self._tracing = tracing
        self._pods: dict[str, Pod[Item, Outcome]] = {}
        self._available: list[Pod[Item, Outcome]] = []
        self._stranded: deque[Pending[Item, Outcome]] = deque()
        self._ready = asyncio.Event()
        self._alarm = Alarm(self._end_expired)
        self.counts = PoolCounts()
        self.hedging = Hedging(
            *(self._limits.hedge_share, self._pods, self.counts), on_change=self.pod_changed, send=self._dispatch
        )
        self._quarantine = Quarantine(self._pods, self.counts, send=self._send, on_change=self.pod_changed)
        self._refresher: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def ready(self) -> bool:
        return bool(self._available)

    @property
    def unanswered(self) -> int:
        """Number of items that have no answer yet. May be read by another thread."""
        at_pods = sum(len(pod.unanswered) for pod in tuple(self._pods.values()))
        return self.stranded + at_pods

    @property
    def stranded(self) -> int:
        """Number of items that wait for a pod."""
        return len(self._stranded) + len(self._quarantine.items)

    def count_pods(self) -> dict[str, int]:
        """The number of pods in each state. May be called from another thread."""
        return count_states(tuple(self._pods.values()))

    async def start(self) -> None:
        await self._refresh()
        if has_names(self._targets):
            self._refresher = asyncio.create_task(self._refresh_forever())

    async def wait_ready(self) -> None:
        """Returns when some pod is available."""
        await self._ready.wait()

    def refusal(self) -> HeddleError:
        """Why no pod is available, as far as is known."""
        return explain_absence([pod.refusals for pod in self._pods.values()], self._targets)

    def submit(self, item: Item, deadline: float, reply: Reply[Outcome]) -> Cancel:
        """Refuses an item that is too large for a stream, even while no pod is available."""
        try:
            size = check_size(item, self._protocol.item_bytes_max)
        except HeddleError as refusal:
            reply(refusal)
            return nothing_to_cancel
        cost_of = self._protocol.cost_of
        span = None
        if self._tracing is not None:
            span = start_call(self._tracing, f"{self._protocol.service}/Infer", item.context)
            reply = end_on_reply(span, reply) if span else reply
        pending: Pending[Item, Outcome] = Pending(item, deadline, reply, size, cost_of(item) if cost_of else size)
        pending.span = span
        self._dispatch(pending)
        self._alarm.set(deadline)
        self.hedging.watch(pending.cost)
        return end_on_cancel(span, pending.withdraw) if span else pending.withdraw

    async def close(self) -> None:
        self._closed = True
        self._alarm.stop()
        self.hedging.stop()
        if self._refresher is not None:
            self._refresher.cancel()
        pods = [self._pods.pop(target) for target in tuple(self._pods)]
        await asyncio.gather(*(pod.close() for pod in pods))
        self._fail_stranded()

    def pod_changed(self) -> None:
        available = [pod for pod in self._pods.values() if pod.available]
        self._available = [pod for pod in available if pod.healthy] or available
        if self.ready != self._ready.is_set():
            (self._ready.set if self.ready else self._ready.clear)()
            self._on_change(self.ready)
        if self.ready:
            stranded, self._stranded = self._stranded, deque()
            for pending in stranded:
                self._dispatch(pending)
            self._quarantine.release()

    def pod_lost(
        self, pod: Pod[Item, Outcome], unanswered: list[Pending[Item, Outcome]], suspects: list[Pending[Item, Outcome]]
    ) -> None:
        has_broken = pod.target in self._pods and not pod.was_draining
        self.counts.lost_pods += has_broken
        self.pod_changed()
        if has_broken or unanswered:
            pod.refusals.log_loss(len(unanswered))
        group, pod.group = pod.group, None
        isolated = {*group.items} if group is not None else set()
        if self._closed:
            suspects = []
        if group is not None and isolated.isdisjoint(suspects):
            self._quarantine.put_back(group)
            group = None
        elif group is not None:
            suspects = list(group.items)  # the others are innocent, as far as is known
        isolated.update(suspects)
        for pending in unanswered:
            pending.attempts += 1
            if pending.leave_to_twin():
                self.hedging.budget.give_back(pending.cost)
                continue
            if pending.span is not None:
                pending.span.add_event("lost", {"server.address": pod.target})
            if pending not in isolated and not pending.answered:
                self._send_again(pending)
        suspects = [pending for pending in suspects if not pending.answered]
        if suspects:
            self._quarantine.add(suspects, is_second=group is not None)
            asyncio.get_running_loop().call_later(self._limits.no_pod_s_max, self._give_up_suspects)
        self._quarantine.release()

    def pod_answered(self, pending: Pending[Item, Outcome], seconds: float) -> None:
        if not self._protocol.relays:  # without a record, nothing is late
            self.hedging.latencies.record(pending.cost, seconds)

    def pod_refused(self, pending: Pending[Item, Outcome], error: HeddleError) -> None:
        """Another pod may have room for what one has not."""
        stays = pending.was_refused or pending.twin is not None or pending.group is not None or self._protocol.relays
        others = [pod for pod in self._available if pod is not pending.pod]
        if stays or not others or error.kind is not ErrorKind.OVERLOADED:
            pending.answer(error)
            return
        pending.was_refused = True
        self.counts.moved += 1
        self._send(pending, random.choice(others))

    def _send_again(self, pending: Pending[Item, Outcome]) -> None:
        if pending.attempts >= self._limits.attempts_max:
            self.counts.abandoned += 1
            message = f"lost {pending.attempts} pods, one after the other, while they worked on this"
            pending.answer(HeddleError(ErrorKind.UNAVAILABLE, message))
        else:
            self.counts.resent += 1
            self._dispatch(pending)

    def _give_up_suspects(self) -> None:
        """Fails what still waits because no pod has come back."""
        waiting = self._quarantine.items
        if self.ready and waiting:
            asyncio.get_running_loop().call_later(self._limits.no_pod_s_max, self._give_up_suspects)
            return
        for pending in waiting:
            pending.answer(self.refusal())

    def _dispatch(self, pending: Pending[Item, Outcome]) -> None:
        if pending.answered:
            return
        if self._available:
            self._send(pending, self._pick())
        else:
            self._strand(pending)

    def _send(self, pending: Pending[Item, Outcome], pod: Pod[Item, Outcome]) -> None:
        try:
            pod.send(pending)
        except CoalescerFull:
            pending.answer(HeddleError(ErrorKind.OVERLOADED, "too much is waiting already", retry_after_ms=1000))

    def _pick(self) -> Pod[Item, Outcome]:
        return pick(self._available)

    def _strand(self, pending: Pending[Item, Outcome]) -> None:
        """Keeps an item until a pod is available, for up to no_pod_s_max."""
        if len(self._stranded) >= self._limits.stranded_items_max or self._closed:
            pending.answer(self.refusal())
            return
        self._stranded.append(pending)
        asyncio.get_running_loop().call_later(self._limits.no_pod_s_max, self._give_up, pending, pending.attempts)

    def _give_up(self, pending: Pending[Item, Outcome], attempts: int) -> None:
        """Does nothing if a pod has taken the item since: it may be stranded again, but not for as long."""
        if pending.attempts == attempts and pending in self._stranded:
            self._stranded.remove(pending)
            pending.answer(self.refusal())

    def _list_unanswered(self) -> list[Pending[Item, Outcome]]:
        at_pods = (pending for pod in self._pods.values() for pending in pod.unanswered)
        return [*self._stranded, *self._quarantine.items, *at_pods]

    def _end_expired(self) -> float:
        """Answers all items whose deadline has passed. Returns the earliest deadline of the others."""
        now, earliest = time.monotonic(), NEVER
        for pending in self._list_unanswered():
            if pending.deadline > now:
                earliest = min(earliest, pending.deadline)
            elif not pending.answered:
                self._end(pending)
        return earliest

    def _end(self, pending: Pending[Item, Outcome]) -> None:
        self.counts.expired += 1
        try:
            pending.answer(deadline_exceeded() if self.ready else self.refusal())
        except Exception:
            log.exception("the callback for an answer failed")
        pending.withdraw()

    def _fail_stranded(self) -> None:
        while self._stranded:
            self._stranded.popleft().answer(self.refusal())
        for pending in self._quarantine.items:
            pending.answer(self.refusal())

    async def _refresh(self) -> None:
        addresses = await resolve(self._targets)
        if addresses is None:
            return
        for address, name in addresses.items():
            if address not in self._pods:
                self._pods[address] = Pod(address, self._protocol, self, self._access, name)
        for address, pod in tuple(self._pods.items()):
            if address not in addresses and (pod.idle or not pod.connected):
                del self._pods[address]
                await pod.close()
            elif pod.listed != (address in addresses):
                pod.listed = address in addresses  # an unlisted pod may still finish its items
                self.pod_changed()

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(DNS_INTERVAL_S)
            await self._refresh()
