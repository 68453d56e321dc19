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
from heddle.rpc.credentials import PLAINTEXT, Access
from heddle.rpc.deadlines import NEVER, Alarm, deadline_exceeded
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.message_bytes import check_size
from heddle.rpc.pending import Pending
from heddle.rpc.pod import Pod
from heddle.rpc.stream import Cancel, Item, Outcome, Reply, StreamProtocol, nothing_to_cancel
from heddle.rpc.targets import DNS_INTERVAL_S, check_targets, has_names, resolve

# A report is stale: by the time it is read, the pod has answered some items, and other clients have sent more. Clients
# that trust reports all rush to the same pods; as a hint, a report still tells slow pods from fast ones. In simulations
# of 2 to 64 clients and 400 pods, any small share did as well as a sixteenth.
OTHERS_DIVISOR = 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolLimits:
    # An item fails after it was lost with this many pods, so that an item that crashes a pod does not crash them all.
    attempts_max: int = 3
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
    ) -> None:
        """`on_change` is called when the pool becomes ready (some pod takes items) and when it ceases to be. Raises
        ValueError for an invalid target."""
        check_targets(*targets)
        self._targets = targets
        self._protocol = protocol
        self._limits = limits or PoolLimits()
        self._access = access
        self._on_change = on_change
        self._pods: dict[str, Pod[Item, Outcome]] = {}
        self._available: list[Pod[Item, Outcome]] = []
        self._stranded: deque[Pending[Item, Outcome]] = deque()
        self._ready = asyncio.Event()
        self._alarm = Alarm(self._end_expired)
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
        if has_names(self._targets):
            self._refresher = asyncio.create_task(self._refresh_forever())

    async def wait_ready(self) -> None:
        """Returns when some pod is available."""
        await self._ready.wait()

    def refusal(self) -> HeddleError:
        """Why no pod is available, as far as is known."""
        refusals = [pod.refusal for pod in self._pods.values() if pod.refusal is not None]
        for refusal in refusals:
            if refusal.kind not in (ErrorKind.UNAVAILABLE, ErrorKind.UNAUTHENTICATED):
                return refusal
        # Quote only refusals of our own servers: the others are gRPC's and the system's many words for "unreachable".
        # UNAUTHENTICATED is this process's fault, not its caller's, so it must not reach the caller as such.
        quoted = [one for one in refusals if one.retry_after_ms or one.kind is ErrorKind.UNAUTHENTICATED]
        said = f": {quoted[0].message}" if quoted else ""
        message = f"no pod can be reached at {', '.join(self._targets)}{said}"
        return HeddleError(ErrorKind.UNAVAILABLE, message, retry_after_ms=1000)

    def submit(self, item: Item, deadline: float, reply: Reply[Outcome]) -> Cancel:
        """Refuses an item that is too large for a stream, even while no pod is available."""
        try:
            size = check_size(item, self._protocol.item_bytes_max)
        except HeddleError as refusal:
            reply(refusal)
            return nothing_to_cancel
        cost_of = self._protocol.cost_of
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
            log.warning("lost %s with %d unanswered items; sending them to other pods", pod.target, len(unanswered))
        for pending in unanswered:
            pending.attempts += 1
            if pending.attempts >= self._limits.attempts_max:
                message = f"lost {pending.attempts} pods, one after the other, while they worked on this"
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
        """Picks the less loaded of two random pods (Mitzenmacher 2001). That is close to the best choice, and clients
        with the same stale reports do not all rush to one pod."""
        pods = self._available
        if len(pods) == 1:
            return pods[0]
        one = random.randrange(len(pods))
        two = pods[one], pods[one - random.randrange(1, len(pods))]
        return min(two, key=lambda pod: (pod.stuck, estimate_load(pod.unanswered_cost, pod.reported_cost)))

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

    def _cancel(self, pending: Pending[Item, Outcome]) -> None:
        if pending.pod is not None:
            pending.pod.cancel(pending)
        pending.answered = True

    def _end_expired(self) -> float:
        """Answers all items whose deadline has passed. Returns the earliest deadline of the others."""
        now, earliest = time.monotonic(), NEVER
        for pending in [*self._stranded, *(pending for pod in self._pods.values() for pending in pod.unanswered)]:
            if pending.deadline > now:
                earliest = min(earliest, pending.deadline)
            elif not pending.answered:
                self._end(pending)
        return earliest

    def _end(self, pending: Pending[Item, Outcome]) -> None:
        try:
            pending.answer(deadline_exceeded() if self.ready else self.refusal())
        except Exception:
            log.exception("the callback for an answer failed")
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
                self._pods[address] = Pod(address, self._protocol, self, self._access, name)
        for address, pod in tuple(self._pods.items()):
            if address not in addresses and (pod.idle or not pod.connected):
                del self._pods[address]
                await pod.close()
            elif pod.listed != (address in addresses):
                pod.listed = address in addresses  # an unlisted pod may still finish its items
                self.pod_changed(pod)

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(DNS_INTERVAL_S)
            await self._refresh()


def estimate_load(unanswered: int, reported: int) -> float:
    """Work ahead of a new item at a pod. `unanswered` is what this client has there; `reported` is the pod's last
    report plus what this client has sent since. All three have the unit of the pod's Load."""
    return unanswered + max(0, reported - unanswered) / OTHERS_DIVISOR
