"""The client's end of a coalescing stream: one pod, its channel, and the items that wait for its answers.

A `Pool` owns the pods and chooses one for each item. A pod connects by itself, checks the peer, reconnects with backoff
when the stream breaks, and then returns its unanswered items to the pool.
"""

import asyncio
import contextlib
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
from heddle.rpc.credentials import PLAINTEXT, Access, FileVersions, explain_refusal
from heddle.rpc.deadlines import remaining_ms
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.health import wait_while_starting
from heddle.rpc.keys import unauthenticated
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
    StreamProtocol,
)
from heddle.rpc.waiting import TimeSlice, poll_until

BACKOFF_S_FIRST = 0.05
BACKOFF_S_MAX = 0.5
CONNECT_S_MAX = 5.0
# A pod that cannot be reached for this long is logged as a warning, once.
AWAY_S = 5.0
# A pod whose batch has run for longer gets nothing new while another pod is available.
RUNNING_MS_MAX = 30_000
# When a certificate changes, the old connection may take this long to finish its items.
RENEW_S_MAX = 10.0
# In one frame: this many fit beside the largest item.
CANCEL_IDS_MAX = 4096

log = logging.getLogger(__name__)


class PodOwner(Protocol[Item, Outcome]):
    """The pod's callbacks to its pool."""

    def pod_changed(self, pod: "Pod[Item, Outcome]") -> None: ...
    def pod_lost(self, pod: "Pod[Item, Outcome]", unanswered: list[Pending[Item, Outcome]]) -> None: ...


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
        self.listed = True  # whether the pool's targets still include it
        self.refusal: HeddleError | None = None  # why the last attempt to connect failed
        self._protocol = protocol
        self._owner = owner
        self._access = access
        self._server_name = server_name
        self._outgoing: Coalescer[Pending[Item, Outcome]] = Coalescer()
        self._unanswered: dict[int, Pending[Item, Outcome]] = {}
        self._cancel_ids: list[int] = []
        self._ids = itertools.count(1)
        self.unanswered_cost = 0
        self.reported_cost = 0  # by the pod, plus what was sent to it since
        self._running_ms = 0
        self._last_heard = 0.0
        self._refused_since = math.inf  # time.monotonic(); inf once it has been logged
        self._task = asyncio.create_task(self._run(), name=f"pod {target}")

    @property
    def available(self) -> bool:
        return self.connected and self.listed and not self.draining

    @property
    def stuck(self) -> bool:
        return self._running_ms > RUNNING_MS_MAX

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
        self.unanswered_cost += pending.cost
        self.reported_cost += pending.cost

    def cancel(self, pending: Pending[Item, Outcome]) -> None:
        """The pod drops the item unless it has begun to compute it."""
        if self._unanswered.pop(pending.id, None) is None:
            return
        pending.answered = True
        self.unanswered_cost -= pending.cost
        self._cancel_ids.append(pending.id)
        self._outgoing.nudge()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        backoff = BACKOFF_S_FIRST
        while True:
            try:
                await self._run_stream()
            except grpc.aio.AioRpcError as error:
                refusal = explain_refusal(error.details() or "", self.target, self._access.tls)
                self._on_refusal(unauthenticated(refusal) if refusal else HeddleError.from_rpc_error(error))
            except ConfigurationError as error:
                self._on_refusal(unauthenticated(str(error)))
            except HeddleError as error:
                self._on_refusal(error)
            except TimeoutError:
                self._on_refusal(HeddleError(ErrorKind.UNAVAILABLE, f"{self.target} does not answer"))
            except Exception as error:  # noqa: BLE001 - whatever ended the stream, connect again
                self._on_refusal(HeddleError.from_exception(error))
            if self._last_heard:
                backoff = BACKOFF_S_FIRST
                self._last_heard = 0.0
            if not await wait_while_starting(self.refusal, self._open_channel, self._protocol.service):
                await asyncio.sleep(backoff * random.uniform(0.5, 1))
            backoff = min(2 * backoff, BACKOFF_S_MAX)

    def _on_refusal(self, error: HeddleError) -> None:
        """Logs why there is no stream: at debug level while a pod restarts, once as a warning if it stays away, once as
        an error if it refuses this client."""
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
        self.refusal = None
        self.connected = True
        self._owner.pod_changed(self)
        writer = asyncio.create_task(self._write(call))
        watchdog = asyncio.create_task(self._watch(call, versions))
        try:
            while True:
                await self._receive(await self._read(call))
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
                pending.item.context.deadline_ms = remaining_ms(pending.deadline, now)
            except HeddleError as spent:
                self._forget(pending)
                pending.answer(spent)
            else:
                items.append(pending.item)
        return frame

    async def _receive(self, frame: ResponseFrame[Outcome]) -> None:
        """Yields to other tasks: a frame can hold hundreds of outcomes, and each may be much work for its receiver."""
        self._last_heard = time.monotonic()
        self.reported_cost = frame.load.waiting_cost + frame.load.running_cost
        self._running_ms = frame.load.running_ms
        if frame.draining and not self.draining:
            self.draining = True
            self._owner.pod_changed(self)
        turn = TimeSlice()
        for outcome in frame.outcomes:
            self._deliver(outcome)
            await turn.give_way()

    def _deliver(self, outcome: Outcome) -> None:
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
        self.unanswered_cost -= pending.cost

    async def _watch(self, call: Any, versions: FileVersions) -> None:
        """Closes a stream that has fallen silent, because its pod or the network is gone, and connects again when files
        of certificates or keys have changed."""
        while time.monotonic() - self._last_heard < SILENCE_S_MAX:
            await asyncio.sleep(HEARTBEAT_S)
            if (now := self._access.versions()) != versions:
                versions = now
                if self._access.is_usable(self.target):
                    await self._drain()
                    call.cancel()
                    return
        log.warning("%s has been silent for %.0f s; sending its items to other pods", self.target, SILENCE_S_MAX)
        call.cancel()

    async def _drain(self) -> None:
        """Takes no more items and waits for outstanding answers."""
        self.draining = True
        self._owner.pod_changed(self)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RENEW_S_MAX):
                await poll_until(lambda: self.idle)

    def _on_disconnect(self) -> None:
        self.connected = self.draining = False
        unanswered = list(self._unanswered.values())
        self._unanswered.clear()
        self._outgoing.drop_all()
        self._cancel_ids.clear()
        self.unanswered_cost = self.reported_cost = self._running_ms = 0
        self._owner.pod_lost(self, unanswered)
