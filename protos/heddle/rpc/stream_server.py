"""The server's end of a coalescing stream. A servicer's Infer is one call of `StreamServer.serve`.

Items go to `submit` as they arrive. Outcomes wait in a coalescer and leave in one frame, with the pod's load. A client
that does not read its outcomes is not read from until they have left.

An outcome is serialized once, when it comes: its size counts, and frames are joined from bytes.
"""

import asyncio
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

import grpc

from heddle.rpc.coalescer import Coalescer, CoalescerLimits
from heddle.rpc.deadlines import read_deadline
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.fairness import peer_flow
from heddle.rpc.keys import check_key
from heddle.rpc.message_bytes import ENTRY_BYTES_MAX, encode_repeated, serialize
from heddle.rpc.stream import (
    HEARTBEAT_S,
    STREAM_BROKEN,
    Cancel,
    Item,
    Outcome,
    RequestFrame,
    ResponseFrame,
    Submit,
    cancel_all,
)
from heddle.rpc.telemetry import log_request_id, request_id
from heddle.rpc.waiting import Changes, poll_until
from heddle.v1 import item_pb2

# The time that a client has for its first frame.
HELLO_S_MAX = 20.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamLimits:
    # Beyond these a stream is not read from until outcomes have left.
    unanswered_items_max: int = 65_536
    unsent_bytes_max: int = 64 << 20
    # A larger outcome becomes an error of its item. Written, it would break the stream for all others.
    outcome_bytes_max: int = ENTRY_BYTES_MAX

    @property
    def outgoing(self) -> CoalescerLimits:
        """Unbounded: the limits above bound what is read, so an outcome always finds room."""
        frame = min(CoalescerLimits().frame_cost_max, self.outcome_bytes_max)
        return CoalescerLimits(items_max=sys.maxsize, cost_max=sys.maxsize, frame_cost_max=frame)


class StreamServer(Generic[Item, Outcome]):
    def __init__(
        self,
        submit: Submit[Item, Outcome],
        *,
        frame_type: Callable[[], ResponseFrame[Outcome]],
        outcome_type: Callable[[], Outcome],
        load: Callable[[], item_pb2.Load],
        check_hello: Callable[[Any], None] = lambda hello: None,
        limits: StreamLimits | None = None,
    ) -> None:
        """`check_hello` gets the first frame of a stream and raises HeddleError to refuse it."""
        self.submit = submit
        self.frame_type = frame_type
        self.outcome_type = outcome_type
        self.load = load
        self.check_hello = check_hello
        self.limits = limits or StreamLimits()
        self.draining = False
        self._sessions: dict[Session[Item, Outcome], None] = {}  # in the order in which they began

    async def serve(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Serves one stream until the client ends it or is gone, then cancels its items. Raises HeddleError."""
        session = Session(self, context)
        self._sessions[session] = None
        try:
            await session.run()
        finally:
            del self._sessions[session]

    async def announce_draining(self) -> None:
        """Asks all clients to send nothing more."""
        self.draining = True
        for session in self._sessions:
            session.outgoing.nudge()

    async def until_idle(self) -> None:
        """Returns when every accepted item has been answered and its outcome sent."""
        await poll_until(lambda: self.idle)

    @property
    def idle(self) -> bool:
        return all(session.idle for session in self._sessions)


class Session(Generic[Item, Outcome]):
    """One client's stream."""

    def __init__(self, server: StreamServer[Item, Outcome], context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._server = server
        self._context = context
        self._flow = peer_flow(context.peer())  # for items that name none
        self._check_key = check_key.get()
        self._best_priority = 0
        self.outgoing: Coalescer[bytes] = Coalescer(server.limits.outgoing)  # serialized outcomes
        self._cancels: dict[int, Cancel | None] = {}  # of the unanswered; None while it is being submitted
        self._writing = False
        self._progress = Changes()

    @property
    def idle(self) -> bool:
        return not self._cancels and not self.outgoing and not self._writing

    async def run(self) -> None:
        hello = await self._read_hello()
        if hello is grpc.aio.EOF:
            return
        self._server.check_hello(hello)
        writer = asyncio.create_task(self._write())
        heart = asyncio.create_task(self._send_heartbeats())
        self.outgoing.nudge()
        try:
            self._receive(hello)
            while (frame := await self._context.read()) is not grpc.aio.EOF:
                self._receive(frame)
                await self._progress.wait_for(self._has_room)
            await self._progress.wait_for(lambda: self.idle)  # the client half-closed: it still wants its answers
        finally:
            heart.cancel()
            writer.cancel()
            cancel_all([cancel for cancel in self._cancels.values() if cancel is not None])

    async def _read_hello(self) -> Any:
        try:
            async with asyncio.timeout(HELLO_S_MAX):
                return await self._context.read()
        except TimeoutError:
            message = f"the stream's first frame did not come within {HELLO_S_MAX:g} s"
            raise HeddleError(ErrorKind.DEADLINE_EXCEEDED, message) from None

    def _receive(self, frame: RequestFrame[Item]) -> None:
        self._best_priority = self._check_key()
        for item_id in frame.cancel_ids:
            cancel = self._cancels.pop(item_id, None)
            if cancel is not None:
                cancel()
        for item in frame.items:
            self._accept(item)

    def _accept(self, item: Item) -> None:
        """Raises INVALID_INPUT, which ends the stream, for an id in use: the caller could not tell two outcomes
        with the same id apart."""
        item_id = item.id
        if item_id in self._cancels:
            message = f"id {item_id} is in use by an unanswered item: choose another id"
            raise HeddleError(ErrorKind.INVALID_INPUT, message)
        self._cancels[item_id] = None
        item.context.flow = item.context.flow or self._flow
        item.context.priority = max(item.context.priority, self._best_priority)
        request = item.context.request_id
        request_id.set(request)
        try:
            cancel = self._server.submit(
                item, read_deadline(item.context), lambda outcome: self._reply(item_id, outcome, request)
            )
        except Exception as exception:  # noqa: BLE001 - one item's bug must not end the stream of the others
            self._reply(item_id, HeddleError.from_exception(exception), request)
            return
        if item_id in self._cancels:
            self._cancels[item_id] = cancel

    def _reply(self, item_id: int, outcome: Outcome | HeddleError, request: str) -> None:
        if item_id in self._cancels:
            del self._cancels[item_id]
            error = self._send(item_id, outcome)
            if error is not None:
                with log_request_id(request):
                    log.log(severity(error), "refused as %s: %s", error.kind.name, error)

    def _send(self, item_id: int, outcome: Outcome | HeddleError) -> HeddleError | None:
        """Returns the error if one was sent, which also replaces an outcome that is too large."""
        if not isinstance(outcome, HeddleError):
            try:
                self._put(item_id, outcome)
            except HeddleError as too_large:
                outcome = too_large
            else:
                return None
        refusal = self._server.outcome_type()
        refusal.error.CopyFrom(outcome.to_proto())
        self._put(item_id, refusal)
        return outcome

    def _put(self, item_id: int, outcome: Outcome) -> None:
        """Raises TOO_LARGE."""
        outcome.id = item_id
        data = serialize(outcome, self._server.limits.outcome_bytes_max)
        self.outgoing.put(data, len(data))

    async def _write(self) -> None:
        while True:
            outcomes = await self.outgoing.take()
            self._writing = True
            try:
                await self._context.write(encode_repeated(outcomes, self._serialize_state()))
            except STREAM_BROKEN as error:
                log.debug("cannot write: %s", error)  # reading fails too, and ends the stream
                return
            self._writing = False
            self._progress.notify()

    def _serialize_state(self) -> bytes:
        """A serialized frame without outcomes."""
        frame = self._server.frame_type()
        frame.load.CopyFrom(self._server.load())
        frame.draining = self._server.draining
        return frame.SerializeToString()

    async def _send_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            self.outgoing.nudge()

    def _has_room(self) -> bool:
        limits = self._server.limits
        return (
            len(self._cancels) + len(self.outgoing) < limits.unanswered_items_max
            and self.outgoing.cost < limits.unsent_bytes_max
        )


def severity(error: HeddleError) -> int:
    """A caller's mistake is logged at debug level only."""
    return logging.WARNING if error.kind in (ErrorKind.INTERNAL, ErrorKind.BAD_OUTPUT) else logging.DEBUG
