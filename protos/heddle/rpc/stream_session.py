"""One client's stream at a server, from its first frame to its end. `stream_server` makes one for each stream.

A small outcome is serialized once, when it comes: its size counts, and frames are joined from bytes. A large one leaves
in pieces, if the client takes them.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Generic

import grpc

from heddle.rpc.deadlines import read_deadline
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.fairness import peer_flow
from heddle.rpc.keys import check_key
from heddle.rpc.message_bytes import encode_repeated, serialize
from heddle.rpc.outgoing import Outgoing
from heddle.rpc.stream import (
    HEARTBEAT_S,
    STREAM_BROKEN,
    Cancel,
    Item,
    LargeOutcome,
    Outcome,
    RequestFrame,
    cancel_all,
)
from heddle.rpc.waiting import Changes
from heddle.telemetry.logs import log_request_id, request_id, traceparent

if TYPE_CHECKING:
    from heddle.rpc.stream_server import StreamServer

# The time that a client has for its first frame.
HELLO_S_MAX = 20.0
# A client is slow that has not taken a frame for so long.
SLOW_S = HEARTBEAT_S

log = logging.getLogger(__name__)


class Session(Generic[Item, Outcome]):
    def __init__(self, server: "StreamServer[Item, Outcome]", context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._server = server
        self._context = context
        self._flow = peer_flow(context.peer())  # for items that name none
        self._check_key = check_key.get()
        self._best_priority = 0
        limits = server.limits
        self.outgoing: Outgoing[Outcome] = Outgoing(limits.outgoing, server.unsent, limits.outcome_bytes_max)
        self._takes_pieces = False
        self._cancels: dict[int, Cancel | None] = {}  # of the unanswered; None while it is being submitted
        self._writing_until: float | None = None  # when the client has to have taken a frame, time.monotonic()
        self._progress = Changes()
        self._stated_heartbeat_s = server.busy_heartbeat_s  # in the last frame
        self._busy_heart: asyncio.TimerHandle | None = None

    @property
    def unanswered(self) -> int:
        return len(self._cancels)

    @property
    def idle(self) -> bool:
        return not self._cancels and not self.outgoing and self._writing_until is None

    async def run(self) -> None:
        hello = await self._read_hello()
        if hello is grpc.aio.EOF:
            return
        self._server.check_hello(hello)
        self._takes_pieces = hello.takes_pieces
        parts = self._write(), self._read_all(), self._send_heartbeats()
        tasks = [asyncio.create_task(part) for part in parts]
        self.outgoing.nudge()
        try:
            self._receive(hello)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            self._end()

    def _end(self) -> None:
        if self._busy_heart is not None:
            self._busy_heart.cancel()
        self.outgoing.close()
        cancels, self._cancels = self._cancels, {}  # what is answered all the same is not kept
        cancel_all([cancel for cancel in cancels.values() if cancel is not None])

    async def _read_all(self) -> None:
        while (frame := await self._context.read()) is not grpc.aio.EOF:
            self._receive(frame)
            await self._progress.wait_for(self._has_room)
        await self._progress.wait_for(lambda: self.idle)  # the client half-closed: it still wants its answers

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
            else:
                self.outgoing.drop(item_id)
        for item in frame.items:
            self._accept(item)
        if self._busy_heart is None and self._cancels:
            self._beat_later()

    def _accept(self, item: Item) -> None:
        """Raises INVALID_INPUT, which ends the stream, for an id in use: the caller could not tell two outcomes
        with the same id apart."""
        item_id = item.id
        if item_id in self._cancels or item_id in self.outgoing:
            message = f"id {item_id} is in use by an unanswered item: choose another id"
            raise HeddleError(ErrorKind.INVALID_INPUT, message)
        self._cancels[item_id] = None
        item.context.flow = item.context.flow or self._flow
        item.context.priority = max(item.context.priority, self._best_priority)
        request, trace = item.context.request_id, item.context.traceparent
        request_id.set(request)
        traceparent.set(trace)
        try:
            cancel = self._server.submit(
                item, read_deadline(item.context), lambda outcome: self._reply(item_id, outcome, request, trace)
            )
        except Exception as exception:  # noqa: BLE001 - one item's bug must not end the stream of the others
            self._reply(item_id, HeddleError.from_exception(exception), request, trace)
            return
        trace = item.context.traceparent  # that of the span that the server has begun
        if item_id in self._cancels:
            self._cancels[item_id] = cancel

    def _reply(
        self, item_id: int, outcome: Outcome | LargeOutcome[Outcome] | HeddleError, request: str, trace: str
    ) -> None:
        if item_id in self._cancels:
            del self._cancels[item_id]
            error = self._send(item_id, outcome)
            if error is not None:
                with log_request_id(request, trace):
                    log.log(severity(error), "refused as %s", error.log_text)
        elif isinstance(outcome, LargeOutcome):
            outcome.release()

    def _send(self, item_id: int, outcome: Outcome | LargeOutcome[Outcome] | HeddleError) -> HeddleError | None:
        """Returns the error if one was sent, which also replaces an outcome that is too large."""
        if isinstance(outcome, LargeOutcome):
            if self._takes_pieces:
                self.outgoing.put_large(item_id, outcome)
                return None
            outcome.release()
            outcome = outcome.outcome
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
        self.outgoing.put(serialize(outcome, self._server.limits.outcome_bytes_max))

    async def _write(self) -> None:
        while True:
            data = encode_repeated(await self.outgoing.take(), self._serialize_state())
            self._writing_until = time.monotonic() + self._server.limits.stall_s_max + len(data) / (1 << 20)
            try:
                await self._context.write(data)
            except STREAM_BROKEN as error:
                log.debug("cannot write: %s", error)  # reading fails too, and ends the stream
                return
            self._writing_until = None
            self.outgoing.written()
            self._progress.notify()

    def _serialize_state(self) -> bytes:
        """A serialized frame with pieces, but without outcomes."""
        frame = self._server.frame_type()
        frame.load.CopyFrom(self._server.load())
        self._stated_heartbeat_s = self._server.busy_heartbeat_s
        frame.load.heartbeat_ms = int(1000 * self._stated_heartbeat_s)
        frame.draining = self._server.draining
        if self.outgoing.has_large:
            frame.pieces.extend(self.outgoing.take_pieces(self._send))
        return frame.SerializeToString()

    async def _send_heartbeats(self) -> None:
        """Raises OVERLOADED for a client that is too slow."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            self.outgoing.nudge()
            if self._writing_until is not None:
                self._check_pace(self._writing_until - time.monotonic())

    def _check_pace(self, left_s: float) -> None:
        """`left_s` is the time that the client has to take a frame. Raises OVERLOADED."""
        is_slow = left_s < self._server.limits.stall_s_max - SLOW_S
        if left_s < 0 or (is_slow and self._server.has_most_unsent(self)):
            message = f"{self.outgoing.cost} bytes wait for this client, which reads too slowly"
            log.warning("ending the stream of %s: %s", self._context.peer(), message)
            raise HeddleError(ErrorKind.OVERLOADED, message, retry_after_ms=1000)

    def _beat_later(self) -> None:
        self._busy_heart = asyncio.get_running_loop().call_later(self._stated_heartbeat_s, self._beat)

    def _beat(self) -> None:
        """Tells a client that waits for answers that this process still runs."""
        self._busy_heart = None
        if self._cancels:
            self.outgoing.nudge()
            self._beat_later()

    def _has_room(self) -> bool:
        limits = self._server.limits
        return (
            len(self._cancels) + len(self.outgoing) < limits.unanswered_items_max
            and self.outgoing.small_cost < limits.unsent_bytes_max
            and (self._server.unsent.total < limits.all_unsent_bytes_max or not self.outgoing.has_large)
        )


def severity(error: HeddleError) -> int:
    """A caller's mistake is logged at debug level only."""
    return logging.WARNING if error.kind in (ErrorKind.INTERNAL, ErrorKind.BAD_OUTPUT) else logging.DEBUG
