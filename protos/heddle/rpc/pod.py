"""One pod as its client sees it: a channel, one coalescing stream, and the items that wait for an answer on it.

A `Pool` owns the pods and decides which gets an item. A pod connects by itself, checks that the peer is the right one,
reconnects with backoff when the stream breaks, and hands its unanswered items back to the pool.
"""

import asyncio
import itertools
import logging
import math
import random
import time
from collections.abc import Collection
from typing import Any, Generic, Protocol, cast

import grpc

from heddle.rpc.channels import open_channel
from heddle.rpc.coalescer import Coalescer
from heddle.rpc.credentials import OPEN, Access, Stamp, refusal_of
from heddle.rpc.deadlines import remaining_ms
from heddle.rpc.dialect import Dialect
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.keys import unauthenticated
from heddle.rpc.load import estimated_load
from heddle.rpc.pending import Pending
from heddle.rpc.settings import ConfigurationError
from heddle.rpc.stream import (
    HEARTBEAT_S,
    SILENCE_S_MAX,
    STREAM_BROKEN,
    Item,
    Outcome,
    RequestFrame,
    ResponseFrame,
)

BACKOFF_S_FIRST = 0.05
BACKOFF_S_MAX = 0.5
CONNECT_S_MAX = 5.0
# A pod that cannot be reached for so long is told of in the log, once.
AWAY_S = 5.0
# A pod whose batch has been on the device for so long gets nothing new while another pod can take it.
RUNNING_MS_MAX = 30_000
# How long the answers of one frame are handed on before the event loop gets its turn.
TURN_S_MAX = 0.002
# Before a connection is made anew because a certificate has changed, the answers on the old one are waited for.
RENEW_S_MAX = 10.0
# Of one frame: so many find room beside the largest item.
CANCEL_IDS_MAX = 4096

log = logging.getLogger(__name__)


class PodOwner(Protocol[Item, Outcome]):
    """What a pod tells its pool."""

    def pod_changed(self, pod: "Pod[Item, Outcome]") -> None: ...
    def pod_lost(self, pod: "Pod[Item, Outcome]", unanswered: list[Pending[Item, Outcome]]) -> None: ...


class Pod(Generic[Item, Outcome]):
    def __init__(
        self,
        target: str,
        dialect: Dialect[Item, Outcome],
        owner: PodOwner[Item, Outcome],
        access: Access = OPEN,
        server_name: str = "",
    ) -> None:
        self.target = target
        self.connected = self.draining = False
        self.listed = True  # the pool's targets stand for it
        self.refusal: HeddleError | None = None  # why the last attempt to connect failed
        self._dialect = dialect
        self._owner = owner
        self._access = access
        self._server_name = server_name
        self._outgoing: Coalescer[Pending[Item, Outcome]] = Coalescer()
        self._unanswered: dict[int, Pending[Item, Outcome]] = {}
        self._cancel_ids: list[int] = []
        self._ids = itertools.count(1)
        self._outstanding_cost = 0
        self._reported_cost = 0
        self._sent_since_report = 0
        self._running_ms = 0
        self._last_heard = 0.0
        self._refused_since = math.inf  # time.monotonic, until it has been told
        self._task = asyncio.create_task(self._run(), name=f"pod {target}")

    @property
    def available(self) -> bool:
        return self.connected and self.listed and not self.draining

    @property
    def stuck(self) -> bool:
        return self._running_ms > RUNNING_MS_MAX

    @property
    def load(self) -> float:
        """Estimated cost ahead of a new item."""
        return estimated_load(self._outstanding_cost, self._reported_cost + self._sent_since_report)

    @property
    def idle(self) -> bool:
        return not self._unanswered

    @property
    def unanswered(self) -> Collection[Pending[Item, Outcome]]:
        return self._unanswered.values()

    def send(self, pending: Pending[Item, Outcome]) -> None:
        """Raises CoalescerFull when too much waits for the stream already."""
        self._outgoing.put(pending, pending.size)
        pending.item.id = pending.id = next(self._ids)
        pending.pod = self
        self._unanswered[pending.id] = pending
        self._outstanding_cost += pending.cost
        self._sent_since_report += pending.cost

    def cancel(self, pending: Pending[Item, Outcome]) -> None:
        """Withdraws an item; the pod drops it if it has not begun."""
        if self._unanswered.pop(pending.id, None) is None:
            return
        pending.answered = True
        self._outstanding_cost -= pending.cost
        self._cancel_ids.append(pending.id)
        self._outgoing.nudge()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        backoff = BACKOFF_S_FIRST
        while True:
            try:
                await self._converse()
            except grpc.aio.AioRpcError as error:
                refusal = refusal_of(error.details() or "", self.target, self._access.tls)
                self._refused(unauthenticated(refusal) if refusal else HeddleError.from_rpc_error(error))
            except ConfigurationError as error:
                self._refused(unauthenticated(str(error)))
            except HeddleError as error:
                self._refused(error)
            except TimeoutError:
                self._refused(HeddleError(ErrorKind.UNAVAILABLE, f"{self.target} does not answer"))
            except Exception as error:  # noqa: BLE001 - whatever ends a stream, the next one is tried
                self._refused(HeddleError.from_exception(error))
            if self._last_heard:
                backoff = BACKOFF_S_FIRST
                self._last_heard = 0.0
            await asyncio.sleep(backoff * random.uniform(0.5, 1))
            backoff = min(2 * backoff, BACKOFF_S_MAX)

    def _refused(self, error: HeddleError) -> None:
        """A pod that starts or restarts is nothing to speak of; one that stays away is, and one that will not have us,
        once."""
        now = time.monotonic()
        if self.refusal is None:
            self._refused_since = now
        is_news = self.refusal is None or self.refusal.message != error.message
        level = logging.DEBUG
        if error.kind is not ErrorKind.UNAVAILABLE and is_news:
            level = logging.ERROR
        elif now - self._refused_since > AWAY_S:
            level, self._refused_since = logging.WARNING, math.inf
        log.log(level, "no stream to %s: %s", self.target, error)
        self.refusal = error

    async def _converse(self) -> None:
        """One stream, from the handshake to its end. It has a channel of its own, and so a connection of its own."""
        stamp = self._access.stamp()
        async with open_channel(self.target, self._access, self._server_name) as channel:
            metadata = self._access.metadata()
            async with asyncio.timeout(CONNECT_S_MAX):
                hello = await self._dialect.handshake(channel, metadata)
                call = self._dialect.open_stream(channel, metadata)
                await call.write(hello)
                # A pod greets, so that a refusal is known before the first item.
                await self._receive(await self._read(call))
            await self._exchange(call, stamp)

    async def _exchange(self, call: Any, stamp: Stamp) -> None:
        self.refusal = None
        self.connected = True
        self._owner.pod_changed(self)
        writer = asyncio.create_task(self._write(call))
        watchdog = asyncio.create_task(self._watch(call, stamp))
        try:
            while True:
                await self._receive(await self._read(call))
        finally:
            writer.cancel()
            watchdog.cancel()
            call.cancel()
            self._disconnected()

    async def _read(self, call: Any) -> ResponseFrame[Outcome]:
        try:
            frame = await call.read()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            frame = grpc.aio.EOF  # the watchdog or the writer cancelled the call, nobody cancelled this task
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
        frame = self._dialect.frame_type()
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
                pending.item.context.deadline_ms = remaining_ms(pending.deadline, now)
            except HeddleError as spent:
                self._forget(pending)
                pending.answer(spent)
            else:
                items.append(pending.item)
        return frame

    async def _receive(self, frame: ResponseFrame[Outcome]) -> None:
        """In turns: what an answer is to its receiver may be much work, and a frame can hold hundreds of them."""
        self._last_heard = time.monotonic()
        self._reported_cost = frame.load.waiting_cost + frame.load.running_cost
        self._sent_since_report = 0
        self._running_ms = frame.load.running_ms
        if frame.draining and not self.draining:
            self.draining = True
            self._owner.pod_changed(self)
        turn_began = time.monotonic()
        for outcome in frame.outcomes:
            self._hand_on(outcome)
            if time.monotonic() - turn_began > TURN_S_MAX:
                await asyncio.sleep(0)
                turn_began = time.monotonic()

    def _hand_on(self, outcome: Outcome) -> None:
        pending = self._unanswered.get(outcome.id)
        if pending is None:  # cancelled meanwhile
            return
        self._forget(pending)
        if outcome.HasField("error"):
            pending.answer(HeddleError.from_proto(outcome.error))
        else:
            pending.answer(outcome)

    def _forget(self, pending: Pending[Item, Outcome]) -> None:
        del self._unanswered[pending.id]
        self._outstanding_cost -= pending.cost

    async def _watch(self, call: Any, stamp: Stamp) -> None:
        """Gives up a stream that has fallen silent: the pod, its machine or the path to it is gone."""
        while time.monotonic() - self._last_heard < SILENCE_S_MAX:
            await asyncio.sleep(HEARTBEAT_S)
            if (now := self._access.stamp()) != stamp:
                stamp = now
                if self._access.is_usable(self.target):
                    await self._drain()
                    call.cancel()
                    return
        log.warning("%s has been silent for %.0f s; its items go to other pods", self.target, SILENCE_S_MAX)
        call.cancel()

    async def _drain(self) -> None:
        """Sends nothing new, and waits for the answers to what was sent."""
        self.draining = True
        self._owner.pod_changed(self)
        end = time.monotonic() + RENEW_S_MAX
        while not self.idle and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def _disconnected(self) -> None:
        self.connected = self.draining = False
        unanswered = list(self._unanswered.values())
        self._unanswered.clear()
        self._outgoing.drop_all()
        self._cancel_ids.clear()
        self._outstanding_cost = self._reported_cost = self._sent_since_report = self._running_ms = 0
        self._owner.pod_lost(self, unanswered)
