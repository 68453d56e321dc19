"""Runs the calls that one request consists of, and bounds how many of its inputs are in flight. /vertex and /score use
it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from heddle.rpc.waiting import Changes

# Enough to fill batches, but fewer than a request may have.
INPUTS_IN_FLIGHT_MAX = 512

T = TypeVar("T")


async def gather_bounded(calls: Sequence[tuple[int, Callable[[], Awaitable[T]]]]) -> list[T]:
    """The results, in the order of `calls`, which are pairs of a count of inputs and a call. A call with more inputs
    than the limit runs alone. The first failure cancels the other calls."""
    in_flight = 0
    changes = Changes()

    def has_room(inputs: int) -> bool:
        return not in_flight or in_flight + inputs <= INPUTS_IN_FLIGHT_MAX

    async def run(inputs: int, call: Callable[[], Awaitable[T]]) -> T:
        nonlocal in_flight
        try:
            return await call()
        finally:
            in_flight -= inputs
            changes.notify()

    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            for inputs, call in calls:
                await changes.wait_for(partial(has_room, inputs))
                in_flight += inputs
                tasks.append(group.create_task(run(inputs, call)))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
