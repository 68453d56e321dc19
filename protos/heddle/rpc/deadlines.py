"""Deadlines: set once, at the edge, and carried with every item; absolute on this machine, relative on the wire.

Clocks of two machines differ, so an item travels with the milliseconds that were left when its frame was written. All
times here are those of time.monotonic(), in seconds; NEVER stands for no deadline.
"""

import math
import time

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import item_pb2

NEVER = math.inf
WIRE_MS_MAX = 2**32 - 1


def deadline_after(seconds: float | None) -> float:
    return NEVER if seconds is None else time.monotonic() + seconds


def deadline_of(context: item_pb2.ItemContext) -> float:
    """When an item that has just arrived runs out of time."""
    return time.monotonic() + context.deadline_ms / 1000 if context.deadline_ms else NEVER


def remaining_ms(deadline: float) -> int:
    """What to write on the wire: 0 = none, otherwise at least 1. Raises DEADLINE_EXCEEDED when the time is spent."""
    if deadline == NEVER:
        return 0
    left = deadline - time.monotonic()
    if left <= 0:
        raise spent()
    return min(max(int(left * 1000), 1), WIRE_MS_MAX)


def spent() -> HeddleError:
    return HeddleError(ErrorKind.DEADLINE_EXCEEDED, "the deadline passed before an answer was there")
