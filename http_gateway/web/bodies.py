"""Bodies of requests that are still arriving: bounds their number, their bytes together, and how long each may pause.

They are bounded apart from the requests that are being answered, so that bodies that never come take no place from
others. When there are too many, the slowest make room. While there is room, a slow caller has until its deadline.
`Exchange.read` registers each body here.
"""

import heapq
import time
from collections.abc import Callable

from http_gateway.admission import overloaded
from http_gateway.errors import Failure

# Younger bodies are never given up to make room: they may have arrived, and only this process has not seen it yet.
YOUNG_S = 0.5
# So many of the waiting bodies are given up at once, so that not every new one has to look through all of them.
ROOM_SHARE = 1 / 32
# Bodies that are slower than this are the first to make room.
PACE_BYTES_PER_S = 16 << 10
# A body whose pieces are not seen is expected to be at least this fast.
UNSEEN_BYTES_PER_S = 256


class ArrivingBody:
    __slots__ = ("began", "due", "end", "expires", "size")

    def __init__(self, end: Callable[[Exception], None], began: float, due: float, expires: float) -> None:
        self.end = end  # gives up the reading
        self.began = began  # time.monotonic() seconds, as are the next two
        self.due = due  # the earlier, the slower it has been; in the past if it is slower than PACE_BYTES_PER_S
        self.expires = expires  # when it has paused for too long
        self.size = 0  # bytes that have arrived


class WaitingBodies:
    def __init__(self, *, bodies_max: int, bytes_max: int, pause_s_max: float) -> None:
        """A body may pause for `pause_s_max` seconds."""
        self._bodies_max = bodies_max
        self._bytes_max = bytes_max
        self._pause_s_max = pause_s_max
        self._bodies: set[ArrivingBody] = set()
        self.bytes = 0  # of those that are read in pieces
        self.ended = {"paused": 0, "crowded": 0}  # bodies that were given up, by reason

    def __len__(self) -> int:
        return len(self._bodies)

    def begin(self, end: Callable[[Exception], None], unseen_size: int = 0) -> ArrivingBody:
        """`end` is called with an error if the body is given up. `unseen_size` is that of a body which is read as a
        whole. Raises OVERLOADED."""
        now = time.monotonic()
        if len(self._bodies) >= self._bodies_max:
            self._make_place(now)
        due = now + self._pause_s_max
        body = ArrivingBody(end, now, due, due + unseen_size / UNSEEN_BYTES_PER_S)
        self._bodies.add(body)
        return body

    def count(self, body: ArrivingBody, size: int) -> None:
        """Called for each piece that has arrived, with its bytes. Raises OVERLOADED."""
        now = time.monotonic()
        body.size += size
        self.bytes += size
        body.expires = now + self._pause_s_max
        body.due = min(body.due + size / PACE_BYTES_PER_S, body.expires)
        if self.bytes > self._bytes_max:
            self._make_room(body, now)

    def finish(self, body: ArrivingBody) -> None:
        """Called once it is whole, or given up. May be called more than once."""
        self._bodies.discard(body)
        self.bytes -= body.size
        body.size = 0

    def check(self) -> None:
        """Gives up bodies that have paused for too long. Called several times a second."""
        now = time.monotonic()
        for body in [body for body in self._bodies if body.expires <= now]:
            self._give_up(body, "paused")

    def _make_place(self, now: float) -> None:
        old = [body for body in self._bodies if body.began <= now - YOUNG_S]
        if not old:
            raise overloaded(f"the bodies of {len(self._bodies)} requests are arriving already")
        for body in heapq.nsmallest(max(1, int(ROOM_SHARE * self._bodies_max)), old, key=lambda body: body.due):
            self._give_up(body, "crowded")

    def _make_room(self, growing: ArrivingBody, now: float) -> None:
        """Only bodies that have been slow for half of their time make room for bytes: if all are fast, it is better to
        refuse one than to lose what has arrived of another."""
        slow = [body for body in self._bodies if body.size and body.due < now + self._pause_s_max / 2]
        for body in sorted(slow, key=lambda body: body.due):
            if body is not growing:
                self._give_up(body, "crowded")
            if self.bytes <= self._bytes_max:
                return
        raise overloaded("the bodies that are arriving fill the memory set aside for them")

    def _give_up(self, body: ArrivingBody, reason: str) -> None:
        self.ended[reason] += 1
        self.finish(body)
        why = "it was the slowest, and others need its place"
        if reason == "paused":
            why = f"it may pause for {self._pause_s_max:g} s"
        message = f"the body did not arrive in time: {why}"
        body.end(Failure(408, "request_timeout", message, headers=[("connection", "close")]))
