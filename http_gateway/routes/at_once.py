"""Several calls for one request, with a bound on the inputs that are under way at a time. /vertex and /score use it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

# Of one request: as many as fill batches, not as many as there may be.
INPUTS_AT_ONCE = 512

T = TypeVar("T")


class Room:
    """For so many inputs at a time. One part that has more goes alone."""

    def __init__(self, inputs_max: int) -> None:
        self._inputs_max = inputs_max
        self._inputs = 0
        self._something_left = asyncio.Event()

    async def enter(self, inputs: int) -> None:
        while self._inputs and self._inputs + inputs > self._inputs_max:
            self._something_left.clear()
            await self._something_left.wait()
        self._inputs += inputs

    def leave(self, inputs: int) -> None:
        self._inputs -= inputs
        self._something_left.set()


async def gather_bounded(calls: Sequence[tuple[int, Callable[[], Awaitable[T]]]]) -> list[T]:
    """In the order of the calls, each of which comes with its count of inputs. The first failure cancels the others."""
    room = Room(INPUTS_AT_ONCE)

    async def result(inputs: int, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await call()
        finally:
            room.leave(inputs)

    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            for inputs, call in calls:
                await room.enter(inputs)
                tasks.append(group.create_task(result(inputs, call)))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
