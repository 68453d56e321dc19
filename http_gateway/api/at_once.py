"""Runs several calls for one request and bounds how many inputs are in flight. /vertex and /score use it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

# Inputs of one request in flight: enough to fill batches, but not all that a request may have.
INPUTS_AT_ONCE = 512

T = TypeVar("T")


class Room:
    """Admits `inputs_max` inputs at a time. A call with more inputs runs alone."""

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
    """The results, in the order of `calls`, which are pairs of a count of inputs and a call. The first failure cancels
    the other calls."""
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
