"""Waiting on the event loop: for a condition that is announced, for one that must be polled, and between two steps.

Used by streams, servers and the services' schedulers.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from weakref import WeakKeyDictionary

POLL_S = 0.01
SLICE_S_MAX = 0.002

# Between two slices of long work, whichever is reached first.
TURNS = 16
SECONDS_BETWEEN_MAX = 0.004


class Changes:
    """Wakes those who wait for a condition whenever it may have become true."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        self._event.set()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._event.clear()
            await self._event.wait()


async def done_before(stop: asyncio.Event, work: Awaitable[None]) -> bool:
    """Returns True when `work` is done, and raises what it raises. Cancels it and returns False if `stop` is set."""
    stopping = asyncio.ensure_future(stop.wait())
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        stopping.cancel()
        working.cancel()


async def poll_until(condition: Callable[[], bool]) -> None:
    """For conditions of many parts that nobody announces, such as "idle" when a server drains."""
    while not condition():
        await asyncio.sleep(POLL_S)


class TimeSlice:
    """Lets other tasks run during a long piece of work. Made when the work begins."""

    def __init__(self, seconds_max: float = SLICE_S_MAX) -> None:
        self._seconds_max = seconds_max
        self._began = time.monotonic()

    async def give_way(self) -> None:
        """Called between two steps: yields to the event loop if the slice is used up, and begins another."""
        if time.monotonic() - self._began > self._seconds_max:
            await asyncio.sleep(0)
            self._began = time.monotonic()


class LongWork:
    """All long pieces of work on one event loop. They take turns, and between two of their slices the loop has TURNS
    turns for all else: a request needs about that many, and so waits for one or two slices, however many there are."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_counting = False

    async def next_turn(self) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if not self._is_counting:
            self._is_counting = True
            self._count_turns(loop, TURNS, time.monotonic() + SECONDS_BETWEEN_MAX)
        await turn

    def _count_turns(self, loop: asyncio.AbstractEventLoop, turns: int, until: float) -> None:
        if turns and time.monotonic() < until:
            loop.call_soon(self._count_turns, loop, turns - 1, until)
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # its task was not cancelled
                turn.set_result(None)
                loop.call_soon(self._count_turns, loop, TURNS, time.monotonic() + SECONDS_BETWEEN_MAX)
                return
        self._is_counting = False


_long_work: WeakKeyDictionary[asyncio.AbstractEventLoop, LongWork] = WeakKeyDictionary()


def long_work() -> LongWork:
    """That of the running event loop."""
    return _long_work.setdefault(asyncio.get_running_loop(), LongWork())
