"""The queue in front of every stream: a writer takes everything that is waiting, and never waits for more.

Producers put items as they come. The consumer takes one frame at a time. An idle consumer gets the first item almost at
once, after a few turns of the event loop. A busy one returns to find many items, and takes them all, up to a frame's
limits. So a single item is not delayed, and the cost per item falls as load grows, without a timer or tuning.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

# What the event loop has ready within this many turns joins a frame. A turn takes a microsecond or two, and a message
# of grpc.aio about 70 at either end.
TURNS = 16


class CoalescerFull(Exception):
    """The queue is full."""


class CoalescerClosed(Exception):
    """The queue was closed: it takes nothing more, and `take` has returned everything."""


@dataclass(frozen=True, slots=True)
class CoalescerLimits:
    items_max: int = 32_768  # waiting
    cost_max: int = 256 << 20  # waiting; in bytes on streams
    # Limits of a frame. An item larger than frame_cost_max goes alone.
    frame_items_max: int = 512
    frame_cost_max: int = 1 << 20


class Coalescer(Generic[T]):
    """A bounded queue of one event loop, with any number of producers and one consumer."""

    def __init__(self, limits: CoalescerLimits | None = None) -> None:
        self._limits = limits or CoalescerLimits()
        self._waiting: deque[tuple[T, int]] = deque()
        self._cost = 0
        self._consumer: asyncio.Future[None] | None = None  # until something has arrived for it
        self._producers: deque[asyncio.Future[None]] = deque()
        self._nudged = False
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def cost(self) -> int:
        """The cost of all waiting items."""
        return self._cost

    @property
    def full(self) -> bool:
        return len(self._waiting) >= self._limits.items_max or self._cost >= self._limits.cost_max

    def put(self, item: T, cost: int = 1) -> None:
        """Never waits. Raises CoalescerFull; a producer that can wait awaits `room` first."""
        if self._closed:
            raise CoalescerClosed
        if self.full:
            raise CoalescerFull
        self._waiting.append((item, cost))
        self._cost += cost
        self._wake_consumer()

    async def room(self) -> None:
        """Returns when there is room for an item, or when the queue is closed."""
        while self.full and not self._closed:
            waiter = asyncio.get_running_loop().create_future()
            self._producers.append(waiter)
            await waiter

    def nudge(self) -> None:
        """Makes the next `take` return even if nothing is waiting, so that the consumer writes its other fields."""
        self._nudged = True
        self._wake_consumer()

    async def take(self) -> list[T]:
        """Returns what is waiting: at least one item, unless nudged. Raises CoalescerClosed when closed and empty."""
        while not self._waiting and not self._nudged:
            if self._closed:
                raise CoalescerClosed
            self._consumer = asyncio.get_running_loop().create_future()
            await self._consumer
        self._nudged = False
        frame = self._cut_frame()
        self._wake_producers()
        return frame

    def close(self) -> None:
        """Refuses further items. Those that are waiting can still be taken."""
        self._closed = True
        self._wake_consumer()
        self._wake_producers()

    def drop_all(self) -> list[T]:
        """Empties the queue and returns its items."""
        dropped = [item for item, _ in self._waiting]
        self._waiting.clear()
        self._cost = 0
        self._wake_producers()
        return dropped

    def _cut_frame(self) -> list[T]:
        frame: list[T] = []
        room = self._limits.frame_cost_max
        while self._waiting and len(frame) < self._limits.frame_items_max:
            item, cost = self._waiting[0]
            if frame and cost > room:
                break
            self._waiting.popleft()
            self._cost -= cost
            room -= cost
            frame.append(item)
        return frame

    def _wake_consumer(self) -> None:
        """Wakes the consumer after TURNS turns. Callbacks count them: resuming a coroutine for each turn costs more."""
        if self._consumer is not None:
            wake_after(TURNS, self._consumer)
            self._consumer = None

    def _wake_producers(self) -> None:
        while self._producers and (self._closed or not self.full):
            waiter = self._producers.popleft()
            if not waiter.done():
                waiter.set_result(None)


def wake_after(turns: int, waiter: asyncio.Future[None]) -> None:
    if turns:
        waiter.get_loop().call_soon(wake_after, turns - 1, waiter)
    elif not waiter.done():
        waiter.set_result(None)
