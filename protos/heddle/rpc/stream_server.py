"""The server's end of a coalescing stream. A servicer's Infer is one call of `StreamServer.serve`.

Items go to `submit` as they arrive. Outcomes wait in `Outgoing` and leave in one frame, with the pod's load. A client
that does not read its outcomes is not read from until they have left, and after a while its stream is ended. Each
stream is a `Session` of `stream_session`.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

import grpc

from heddle.rpc.coalescer import CoalescerLimits
from heddle.rpc.message_bytes import ENTRY_BYTES_MAX
from heddle.rpc.outgoing import UnsentBytes
from heddle.rpc.stream import BUSY_HEARTBEAT_S, HEARTBEAT_S, Item, Outcome, ResponseFrame, ServerSubmit
from heddle.rpc.stream_session import Session
from heddle.rpc.waiting import poll_until
from heddle.v1 import item_pb2

# More streams beat less often, so that their heartbeats take a few per cent of a core at most.
STREAMS_AT_FULL_RATE = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamLimits:
    # Beyond these a stream is not read from until outcomes have left.
    unanswered_items_max: int = 65_536
    unsent_bytes_max: int = 64 << 20
    # Beyond this, in all streams together, the one that has most of it is ended if its client is slow.
    all_unsent_bytes_max: int = 1 << 30
    # A client is slow that has not taken a frame for SLOW_S. Its stream is ended after this time, and a second for each
    # MiB of the frame.
    stall_s_max: float = 20.0
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
        submit: ServerSubmit[Item, Outcome],
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
        self.unsent = UnsentBytes()
        self._sessions: dict[Session[Item, Outcome], None] = {}  # in the order in which they began

    async def serve(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Serves one stream until the client ends it or is gone, then cancels its items. Raises HeddleError."""
        session = Session(self, context)
        self._sessions[session] = None
        try:
            await session.run()
        except grpc.aio.BaseError as error:
            log.debug("the stream is over: %r", error)  # the server stops while it reads
        finally:
            del self._sessions[session]

    async def announce_draining(self) -> None:
        """Asks all clients to send nothing more."""
        self.draining = True
        self.announce_load()

    def announce_load(self) -> None:
        """Tells all clients at once that the pod has become ready, or is no longer."""
        for session in self._sessions:
            session.outgoing.nudge()

    async def until_idle(self) -> None:
        """Returns when every accepted item has been answered and its outcome sent."""
        await poll_until(lambda: self.idle)

    def measure(self) -> tuple[int, int, int]:
        """The open streams, their items without an answer, and the bytes of answers that have not left. May be called
        from another thread."""
        sessions = tuple(self._sessions)
        items = sum(session.unanswered for session in sessions)
        return len(sessions), items, sum(session.outgoing.cost for session in sessions)

    @property
    def busy_heartbeat_s(self) -> float:
        """Longest time between two frames of a stream with unanswered items."""
        return min(HEARTBEAT_S, BUSY_HEARTBEAT_S * max(1, len(self._sessions) / STREAMS_AT_FULL_RATE))

    @property
    def idle(self) -> bool:
        return all(session.idle for session in self._sessions)

    def has_most_unsent(self, session: Session[Item, Outcome]) -> bool:
        """Whether too much is unsent, and most of it on this stream."""
        if self.unsent.total <= self.limits.all_unsent_bytes_max:
            return False
        return session is max(self._sessions, key=lambda one: one.outgoing.cost)
