"""Counts the turns of other tasks on the event loop, for tests of work that must not block it."""

import asyncio
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self


class Turns(AbstractContextManager["Turns"]):
    """`with Turns() as turns: await work()`; afterwards `turns.count` is how often other tasks ran meanwhile."""

    count = 0

    def __enter__(self) -> Self:
        self._ticking = asyncio.create_task(self._tick())
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._ticking.cancel()

    async def _tick(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)
