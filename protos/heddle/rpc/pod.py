"""The client's end of a coalescing stream: one pod, its channel, and the items that wait for its answers.

A `Pool` owns the pods and chooses one for each item. A pod connects by itself, checks the peer, reconnects with backoff
when the stream breaks, and then returns its unanswered items to the pool.
"""

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections.abc import Collection
from typing import Any, Generic, cast

import grpc

from heddle.rpc.channels import open_channel
from heddle.rpc.coalescer import Coalescer
from heddle.rpc.credentials import PLAINTEXT, Access, FileVersions
from heddle.rpc.deadlines import remaining_ms
from heddle.rpc.errors import ErrorKind, HeddleError, find_detail
from heddle.rpc.health import wait_while_starting
from heddle.rpc.pending import Group, Pending, PodOwner
from heddle.rpc.pieces import Joiner
from heddle.rpc.refusals import Refusals, explain
from heddle.rpc.stream import (
    HEARTBEAT_S,
    SILENCE_S_MAX,
    STREAM_BROKEN,
    Item,
    Outcome,
    RequestFrame,
    ResponseFrame,
    StreamProtocol,
)
from heddle.rpc.waiting import TimeSlice, poll_until

BACKOFF_S_FIRST = 0.05
BACKOFF_S_MAX = 0.5
CONNECT_S_MAX = 5.0
# When a certificate changes, the old connection may take this long to finish its items.
RENEW_S_MAX = 10.0
# In one frame: this many fit beside the largest item.
CANCEL_IDS_MAX = 4096

log = logging.getLogger(__name__)


class Pod(Generic[Item, Outcome]):
    def __init__(
        self,
        target: str,
        protocol: StreamProtocol[Item, Outcome],
        owner: PodOwner[Item, Outcome],
        access: Access = PLAINTEXT,
        server_name: str = "",
    ) -> None:
        self.target = target
        self.connected = self.draining = False
        self.was_draining = False  # when its last stream ended
        self.is_unready = False  # connected, but it says that it can answer nothing now
        self.listed = True  # whether the pool's targets still include it
        self.group: Group[Item, Outcome] | None = None  # of suspects that this pod works on
        self.heartbeat_s = 0.0  # a frame comes at least as often while there is work; 0: the pod does not say
        self.last_heard = self.last_progress = 0.0  # a frame, an outcome or piece of one; time.monotonic
        self.slow_at = 0.0  # when it was last found slow, see `heddle.rpc.hedging`; 0: it is not
        self._protocol = protocol
        self._owner = owner
        self._access = access
        self._server_name = server_name
        self._outgoing: Coalescer[Pending[Item, Outcome]] = Coalescer()
        self._unanswered: dict[int, Pending[Item, Outcome]] = {}
        self._joiner = Joiner(protocol.outcome_type)
        self._cancel_ids: list[int] = []
        self._ids = itertools.count(1)
        self.unanswered_cost = self.running_ms = 0
        self.reported_cost = 0  # by the pod, plus what was sent to it since
        self._has_not_crashed = False  # although its stream ends
        self.refusals = Refusals(target)
        self._backoff_s = BACKOFF_S_FIRST
        self._task = asyncio.create_task(self._run(), name=f"pod {target}")

    @property
    def available(self) -> bool:
        return self.connected and self.listed and not (self.draining or self.is_unready)

    @property
    def healthy(self) -> bool:
        """Whether it may get any item. Other available pods get items only while none is healthy."""
        return self.available and not self.slow_at and self.group is None

    @property
    def idle(self) -> bool:
        return not self._unanswered

    @property
    def unanswered(self) -> Collection[Pending[Item, Outcome]]:
        return self._unanswered.values()

    def send(self, pending: Pending[Item, Outcome]) -> None:
        """Raises CoalescerFull when too much waits for the stream already."""
        self._outgoing.put(pending, pending.size)
        pending.id = next(self._ids)
        pending.pod = self
        pending.sent_at = time.monotonic()
        self._unanswered[pending.id] = pending
        self.unanswered_cost += pending.cost
        self.reported_cost += pending.cost
        if pending.span is not None:
            pending.span.record_attempt(self.target)

    def cancel(self, pending: Pending[Item, Outcome]) -> None:
        """The pod drops the item unless it has begun to compute it."""
        if pending.id in self._unanswered:
            self._forget(pending)
            self._cancel_ids.append(pending.id)
            self._outgoing.nudge()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._run_stream()
            except Exception as error:  # noqa: BLE001 - whatever ended the stream, connect again
                self.refusals.note(explain(error, self.target, self._access))
            self.last_heard, self.draining, self.is_unready = 0.0, False, False
            if not await wait_while_starting(self.refusals.last, self._open_channel, self._protocol.service):
                await asyncio.sleep(self._backoff_s * random.uniform(0.5, 1))
            self._backoff_s = min(2 * self._backoff_s, BACKOFF_S_MAX)

    def _open_channel(self) -> grpc.aio.Channel:
        return open_channel(self.target, self._access, self._server_name)

    async def _run_stream(self) -> None:
        """Runs one stream, from handshake to end. Each has its own channel, and so its own connection."""
        versions = self._access.versions()
        async with self._open_channel() as channel:
            metadata = self._access.metadata()
            async with asyncio.timeout(CONNECT_S_MAX):
                hello = await self._protocol.handshake(channel, metadata)
                call = self._protocol.open_stream(channel, metadata)
                await call.write(hello)
                # A pod writes a frame at once, so a refusal is known before the first item is sent.
                await self._receive(await self._read(call))
            await self._exchange(call, versions)

    async def _exchange(self, call: Any, versions: FileVersions) -> None:
        if not self.is_unready:
            self.refusals.clear()
        self._backoff_s = BACKOFF_S_FIRST
        self.connected = True
        self._owner.pod_changed()
        writer = asyncio.create_task(self._write(call))
        watchdog = asyncio.create_task(self._watch(call, versions))
        try:
            while True:
                await self._receive(await self._read(call))
        except grpc.aio.AioRpcError as error:
            self._has_not_crashed = find_detail(error) is not None
            raise
        finally:
            writer.cancel()
            watchdog.cancel()
            call.cancel()
            self._on_disconnect()

    async def _read(self, call: Any) -> ResponseFrame[Outcome]:
        try:
            frame = await call.read()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            frame = grpc.aio.EOF  # the watchdog or the writer cancelled the call, not this task
        if frame is grpc.aio.EOF:
            raise HeddleError(ErrorKind.UNAVAILABLE, f"{self.target} closed the stream")
        if frame is None:  # grpc.aio has logged why it cannot be parsed
            raise HeddleError(ErrorKind.INTERNAL, f"{self.target} sent bytes that are not a frame")
        return cast("ResponseFrame[Outcome]", frame)

    async def _write(self, call: Any) -> None:
        try:
            while True:
                await call.write(self._next_frame(await self._outgoing.take()))
        except STREAM_BROKEN as error:
            log.debug("cannot write to %s: %s", self.target, error)
        finally:
            call.cancel()  # so that the reader sees the end too

    def _next_frame(self, waiting: list[Pending[Item, Outcome]]) -> RequestFrame[Item]:
        frame = self._protocol.frame_type()
        frame.cancel_ids.extend(self._cancel_ids[:CANCEL_IDS_MAX])
        del self._cancel_ids[:CANCEL_IDS_MAX]
        if self._cancel_ids:
            self._outgoing.nudge()
        items = frame.items
        now = time.monotonic()
        for pending in waiting:
            if pending.answered:
                continue
            try:
                pending.item.id = pending.id  # a hedged item has another at each pod
                pending.item.context.deadline_ms = remaining_ms(pending.deadline, now)
            except HeddleError as spent:
                self._forget(pending)
                pending.answer(spent)
            else:
                items.append(pending.item)
        return frame

    async def _receive(self, frame: ResponseFrame[Outcome]) -> None:
        """Yields to other tasks: a frame can hold hundreds of outcomes, and each may be much work for its receiver.
        Raises UNAVAILABLE when a draining pod has nothing left to answer: a proxy may then lead to another."""
        self.last_heard = time.monotonic()
        self.reported_cost = frame.load.waiting_cost + frame.load.running_cost
        self.running_ms = frame.load.running_ms
        self.heartbeat_s = frame.load.heartbeat_ms / 1000
        if (reason := frame.load.unready_reason) or self.is_unready:
            self._note_unready(reason)
        if frame.pieces:
            self.last_progress = self.last_heard
        if frame.draining and not self.draining:
            self.draining = True
            self._owner.pod_changed()
        turn = TimeSlice()
        for outcome in (*frame.outcomes, *self._joiner.join(frame.pieces, self._unanswered)):
            self._deliver(outcome)
            await turn.give_way()
        if self.draining and not self._unanswered:
            raise HeddleError(ErrorKind.UNAVAILABLE, f"{self.target} is draining")

    def _note_unready(self, reason: str) -> None:
        if reason:
            message = f"{self.target} is not ready: {reason}"
            self.refusals.note(HeddleError(ErrorKind.UNAVAILABLE, message, retry_after_ms=1000), is_connected=True)
        else:
            self.refusals.clear()
        if self.is_unready != bool(reason):
            self.is_unready = bool(reason)
            self._owner.pod_changed()

    def _deliver(self, outcome: Outcome) -> None:
        pending = self._unanswered.get(outcome.id)
        if pending is None:  # cancelled meanwhile
            return
        self._forget(pending)
        self.last_progress = self.last_heard
        if outcome.HasField("error"):
            self._owner.pod_refused(pending, HeddleError.from_proto(outcome.error))
        else:
            self._owner.pod_answered(pending, self.last_heard - pending.sent_at)
            pending.answer(outcome)

    def _forget(self, pending: Pending[Item, Outcome]) -> None:
        self._joiner.drop(pending.id)
        del self._unanswered[pending.id]
        self.unanswered_cost -= pending.cost

    async def _watch(self, call: Any, versions: FileVersions) -> None:
        """Closes a stream that has fallen silent, because its pod or the network is gone, and connects again when files
        of certificates or keys have changed."""
        while time.monotonic() - self.last_heard < SILENCE_S_MAX:
            await asyncio.sleep(HEARTBEAT_S)
            if (now := self._access.versions()) != versions:
                versions = now
                if self._access.is_usable(self.target):
                    await self._drain()
                    call.cancel()
                    return
        log.warning("%s has been silent for %.0f s; sending its items to other pods", self.target, SILENCE_S_MAX)
        self._has_not_crashed = True
        call.cancel()

    async def _drain(self) -> None:
        """Takes no more items and waits for outstanding answers."""
        self.draining = True
        self._owner.pod_changed()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RENEW_S_MAX):
                await poll_until(lambda: self.idle)

    def _on_disconnect(self) -> None:
        unanswered, unsent = list(self._unanswered.values()), set(self._outgoing.drop_all())
        may_have_crashed = not (self.draining or self._has_not_crashed)
        suspects = [pending for pending in unanswered if pending not in unsent] if may_have_crashed else []
        self.was_draining = self.draining
        self.connected = self.draining = self.is_unready = self._has_not_crashed = False
        self._unanswered.clear()
        self._joiner.clear()
        self._cancel_ids.clear()
        self.unanswered_cost = self.reported_cost = self.running_ms = 0
        self.slow_at = 0.0
        self._owner.pod_lost(self, unanswered, suspects)
