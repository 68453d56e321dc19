"""Deadlines: set once, at the edge, and carried with every item; absolute on this machine, relative on the wire.

Clocks of two machines differ, so an item travels with the milliseconds that were left when its frame was written. All
times here are those of time.monotonic(), in seconds; NEVER stands for no deadline.
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
    """When an item that has just arrived runs out of time."""
    return time.monotonic() + context.deadline_ms / 1000 if context.deadline_ms else NEVER


def remaining_ms(deadline: float, now: float) -> int:
    """What to write on the wire: 0 = none, otherwise at least 1. Raises DEADLINE_EXCEEDED when the time is spent."""
    if deadline == NEVER:
        return 0
    left = deadline - now
    if left <= 0:
        raise deadline_exceeded()
    if left >= WIRE_MS_MAX / 1000:
        return WIRE_MS_MAX
    return int(left * 1000) or 1


# Each ring looks at all that waits: thousands whose deadlines are a millisecond apart are told in groups.
ALARM_PAUSE_S = 0.02


class Alarm:
    """One timer for many deadlines: a timer for each costs more than all else that is done to keep it."""

    def __init__(self, ring: Callable[[], float]) -> None:
        """`ring` is called at the earliest time that was set, or up to ALARM_PAUSE_S later, and says when it is wanted
        next. It may be called for a deadline that nobody has any more."""
        self._ring = ring
        self._at = NEVER
        self._timer: asyncio.TimerHandle | None = None

    def set(self, deadline: float) -> None:
        if deadline < self._at:
            self.stop()
            self._at = deadline
            # Timers of the event loop know milliseconds, and may be early by one.
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
    return HeddleError(ErrorKind.DEADLINE_EXCEEDED, "the deadline passed before an answer was there")
