"""Deadlines: set once, where a request arrives, and sent along with every item.

On one machine a deadline is a time of time.monotonic(), in seconds; NEVER means none. Clocks of two machines differ, so
on the wire it is the milliseconds that are left when the frame is written.
"""

import asyncio
import math
import time
from collections.abc import Callable

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import item_pb2

NEVER = math.inf
WIRE_MS_MAX = 2**32 - 1


def deadline_after(seconds: float | None) -> float:
    return NEVER if seconds is None else time.monotonic() + seconds


def read_deadline(context: item_pb2.ItemContext) -> float:
    """The deadline of an item that has just arrived."""
    return time.monotonic() + context.deadline_ms / 1000 if context.deadline_ms else NEVER


def remaining_ms(deadline: float, now: float) -> int:
    """The value on the wire: 0 for none, otherwise at least 1. Raises DEADLINE_EXCEEDED once it has passed."""
    if deadline == NEVER:
        return 0
    left = deadline - now
    if left <= 0:
        raise deadline_exceeded()
    if left >= WIRE_MS_MAX / 1000:
        return WIRE_MS_MAX
    return int(left * 1000) or 1


# `ring` looks at all waiting items, so deadlines a millisecond apart are handled together.
ALARM_PAUSE_S = 0.02


class Alarm:
    """One timer for many deadlines. A timer per item would cost more than the rest of its bookkeeping."""

    def __init__(self, ring: Callable[[], float]) -> None:
        """`ring` is called at the earliest time that was set, or up to ALARM_PAUSE_S later, and returns the next time.
        It may be called for a deadline whose item is answered already."""
        self._ring = ring
        self._at = NEVER
        self._timer: asyncio.TimerHandle | None = None

    def set(self, deadline: float) -> None:
        if deadline < self._at:
            self.stop()
            self._at = deadline
            # The event loop's timers have millisecond resolution, and may fire one early.
            delay = max(0.0, deadline - time.monotonic()) + 0.001
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_time)

    def stop(self) -> None:
        self._at = NEVER
        if self._timer is not None:
            self._timer.cancel()

    def _on_time(self) -> None:
        self._at = NEVER
        self.set(max(self._ring(), time.monotonic() + ALARM_PAUSE_S))


def deadline_exceeded() -> HeddleError:
    return HeddleError(ErrorKind.DEADLINE_EXCEEDED, "the deadline passed before the answer was ready")
