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

from heddle.rpc.coalescer import CoalescerFull
from heddle.rpc.credentials import OPEN, Access
from heddle.rpc.deadlines import NEVER, Alarm, spent
from heddle.rpc.dialect import Dialect
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.message_bytes import checked_size
from heddle.rpc.pending import Pending
from heddle.rpc.pod import Pod
from heddle.rpc.resolver import DNS_INTERVAL_S, needs_refresh, resolve
from heddle.rpc.stream import Cancel, Item, Outcome, Reply, nothing_to_cancel
from heddle.rpc.target import check_targets

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolLimits:
    # Pods that an item may be lost with before it fails: an item that kills its pod must not kill them all.
    attempts_max: int = 3
    # How long items wait when no pod can be reached: a pod that restarts is back within that time.
    no_pod_s_max: float = 10.0
    # Items that wait for a pod to appear.
    stranded_items_max: int = 4096


class Pool(Generic[Item, Outcome]):
    """Owner of its pods; everything happens on one event loop. `submit` is a hop (see heddle.rpc.stream)."""

    def __init__(
        self,
        targets: tuple[str, ...],
        dialect: Dialect[Item, Outcome],
        *,
        limits: PoolLimits | None = None,
        access: Access = OPEN,
        on_change: Callable[[bool], None] = lambda ready: None,
    ) -> None:
        """`on_change` is told whenever the pool becomes ready (some pod takes items) or stops being so. Raises
        ValueError for what is no target."""
        check_targets(*targets)
        self._targets = targets
        self._dialect = dialect
        self._limits = limits or PoolLimits()
        self._access = access
        self._on_change = on_change
        self._pods: dict[str, Pod[Item, Outcome]] = {}
        self._available: list[Pod[Item, Outcome]] = []
        self._stranded: deque[Pending[Item, Outcome]] = deque()
        self._ready = asyncio.Event()
        self._alarm = Alarm(self._end_what_is_late)
        self._refresher: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def ready(self) -> bool:
        return bool(self._available)

    @property
    def unanswered(self) -> int:
        """Number of items that have no answer yet."""
        return len(self._stranded) + sum(len(pod.unanswered) for pod in self._pods.values())

    async def start(self) -> None:
        await self._refresh()
        if needs_refresh(self._targets):
            self._refresher = asyncio.create_task(self._refresh_forever())

    async def wait_ready(self) -> None:
        """Returns when some pod takes items."""
        await self._ready.wait()

    def refusal(self) -> HeddleError:
        """Why no pod takes items, as far as is known."""
        refusals = [pod.refusal for pod in self._pods.values() if pod.refusal is not None]
        for refusal in refusals:
            if refusal.kind not in (ErrorKind.UNAVAILABLE, ErrorKind.UNAUTHENTICATED):
                return refusal
        # Only a server of ours says when to come back; the rest is gRPC's and the system's many words for "not there".
        # That pods do not let this process in is no mistake of its caller, who may have a key of its own.
        telling = [one for one in refusals if one.retry_after_ms or one.kind is ErrorKind.UNAUTHENTICATED]
        said = f": {telling[0].message}" if telling else ""
        message = f"no pod can be reached at {', '.join(self._targets)}{said}"
        return HeddleError(ErrorKind.UNAVAILABLE, message, retry_after_ms=1000)

    def submit(self, item: Item, deadline: float, reply: Reply[Outcome]) -> Cancel:
        """Refuses what a stream cannot carry, before it waits for one."""
        try:
            size = checked_size(item, self._dialect.item_bytes_max)
        except HeddleError as refusal:
            reply(refusal)
            return nothing_to_cancel
        cost_of = self._dialect.cost_of
        pending: Pending[Item, Outcome] = Pending(item, deadline, reply, size, cost_of(item) if cost_of else size)
        self._dispatch(pending)
        self._alarm.set(deadline)
        return lambda: self._cancel(pending)

    async def close(self) -> None:
        self._closed = True
        self._alarm.stop()
        if self._refresher is not None:
            self._refresher.cancel()
        pods, self._pods = self._pods, {}
        await asyncio.gather(*(pod.close() for pod in pods.values()))
        self._fail_stranded()

    def pod_changed(self, pod: Pod[Item, Outcome]) -> None:
        self._available = [pod for pod in self._pods.values() if pod.available]
        if self.ready != self._ready.is_set():
            (self._ready.set if self.ready else self._ready.clear)()
            self._on_change(self.ready)
        if self.ready:
            stranded, self._stranded = self._stranded, deque()
            for pending in stranded:
                self._dispatch(pending)

    def pod_lost(self, pod: Pod[Item, Outcome], unanswered: list[Pending[Item, Outcome]]) -> None:
        self.pod_changed(pod)
        if unanswered:
            log.warning("lost %s with %d items unanswered; they move on", pod.target, len(unanswered))
        for pending in unanswered:
            pending.attempts += 1
            if pending.attempts >= self._limits.attempts_max:
                message = f"lost with {pending.attempts} pods, one after the other"
                pending.answer(HeddleError(ErrorKind.UNAVAILABLE, message))
            else:
                self._dispatch(pending)

    def _dispatch(self, pending: Pending[Item, Outcome]) -> None:
        if pending.answered:
            return
        if not self._available:
            self._strand(pending)
            return
        try:
            self._pick().send(pending)
        except CoalescerFull:
            pending.answer(HeddleError(ErrorKind.OVERLOADED, "too much is waiting already", retry_after_ms=1000))

    def _pick(self) -> Pod[Item, Outcome]:
        """The less loaded of two pods drawn at random (Mitzenmacher 2001): close to the best pick, and many clients
        with the same stale reports do not all rush to the same pod."""
        pods = self._available
        if len(pods) == 1:
            return pods[0]
        one = random.randrange(len(pods))
        first, second = pods[one], pods[one - random.randrange(1, len(pods))]
        if first.stuck != second.stuck:
            return second if first.stuck else first
        return first if first.load <= second.load else second

    def _strand(self, pending: Pending[Item, Outcome]) -> None:
        """Keeps an item until a pod appears, for a while."""
        if len(self._stranded) >= self._limits.stranded_items_max or self._closed:
            pending.answer(self.refusal())
            return
        self._stranded.append(pending)
        asyncio.get_running_loop().call_later(self._limits.no_pod_s_max, self._give_up, pending)

    def _give_up(self, pending: Pending[Item, Outcome]) -> None:
        if pending in self._stranded:
            self._stranded.remove(pending)
            pending.answer(self.refusal())

    def _cancel(self, pending: Pending[Item, Outcome]) -> None:
        if pending.pod is not None:
            pending.pod.cancel(pending)
        pending.answered = True

    def _end_what_is_late(self) -> float:
        """Answers what has run out of time, wherever it waits. Returns the earliest deadline of the others."""
        now, earliest = time.monotonic(), NEVER
        for pending in [*self._stranded, *(pending for pod in self._pods.values() for pending in pod.unanswered)]:
            if pending.deadline > now:
                earliest = min(earliest, pending.deadline)
            elif not pending.answered:
                self._end(pending)
        return earliest

    def _end(self, pending: Pending[Item, Outcome]) -> None:
        try:
            pending.answer(spent() if self.ready else self.refusal())
        except Exception:
            log.exception("the receiver of an answer failed")
        self._cancel(pending)

    def _fail_stranded(self) -> None:
        while self._stranded:
            self._stranded.popleft().answer(self.refusal())

    async def _refresh(self) -> None:
        addresses = await resolve(self._targets)
        if addresses is None:
            return
        for address, name in addresses.items():
            if address not in self._pods:
                self._pods[address] = Pod(address, self._dialect, self, self._access, name)
        for address, pod in tuple(self._pods.items()):
            if address not in addresses and (pod.idle or not pod.connected):
                del self._pods[address]
                await pod.close()
            elif pod.listed != (address in addresses):
                pod.listed = address in addresses  # what an unlisted one has, it may still answer
                self.pod_changed(pod)

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(DNS_INTERVAL_S)
            await self._refresh()
