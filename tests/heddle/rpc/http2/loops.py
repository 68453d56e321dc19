"""Tests of sockets run on both loops: services run on uvloop, a client wherever its caller does."""

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

TEST_S_MAX = 30.0

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that also fails by what only the loop gets to see, such as an exception in a callback, and by tasks that
    are left behind."""

    @functools.wraps(test)
    def on_loop(loop: str, **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(watched(test(**arguments)))

    parameters = inspect.signature(test).parameters.values()
    added = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    on_loop.__signature__ = inspect.Signature([*parameters, added])  # type: ignore[attr-defined]
    on_each: Callable[..., None] = pytest.mark.parametrize("loop", list(LOOPS))(on_loop)
    return on_each


async def watched(test: Coroutine[Any, Any, None]) -> None:
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    before = asyncio.all_tasks()
    await asyncio.wait_for(test, TEST_S_MAX)
    for _ in range(100):  # what was cancelled gets its turn
        if asyncio.all_tasks() == before:
            break
        await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before
    assert not seen
