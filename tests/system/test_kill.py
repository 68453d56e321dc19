"""Processes are killed under load. Callers notice nothing, because lost work is computed again."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Self

import httpx
import pytest

from heddle.cli.readiness import grpc_ready
from heddle.client import Client, UnaryClient
from tests.processes import running
from tests.system.served import START_S_MAX, Served, served

pytestmark = [pytest.mark.slow, pytest.mark.chaos]

CALLERS = 16


class Load:
    """Callers over HTTP, streams and unary calls, `callers` of each, until `stop`. Each checks its answers, and has one
    item at the engines at a time."""

    def __init__(self, at: Served, callers: int = CALLERS) -> None:
        self.at = at
        self.callers = callers
        self.answers_by: Counter[object] = Counter()  # by the task of each caller
        self.stopped = False
        self.tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self.http = httpx.AsyncClient(base_url=self.at.url, timeout=60)
        self.clients = (Client(self.at.grpc), UnaryClient(self.at.grpc))
        for number in range(self.callers):
            self.tasks.append(asyncio.create_task(self.call_http(number)))
            self.tasks += [asyncio.create_task(self.call_grpc(client, number)) for client in self.clients]
        await self.progress()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stopped = True
        try:
            await asyncio.gather(*self.tasks)
        finally:
            await self.http.aclose()
            for client in self.clients:
                await client.close()

    async def progress(self) -> None:
        """Waits until every caller can have had some more answers. Raises the first error of any caller."""
        enough = self.answers_by.total() + 10 * len(self.tasks)
        await self._wait_until(lambda: self.answers_by.total() >= enough)

    async def progress_of_all(self) -> None:
        """Waits until every caller has had an answer to a question that it asked meanwhile."""
        before = self.answers_by.copy()
        await self._wait_until(lambda: all(self.answers_by[task] > before[task] + 1 for task in self.tasks))

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            for task in self.tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.02)

    async def call_http(self, number: int) -> None:
        body = {"model": "any", "input": [f"caller {number}", "a second text"]}
        while not self.stopped:
            response = await self.http.post("/v1/embeddings", json=body)
            assert response.status_code == 200, response.text
            assert len(response.json()["data"]) == 2
            self.answers_by[asyncio.current_task()] += 1

    async def call_grpc(self, client: Client | UnaryClient, number: int) -> None:
        while not self.stopped:
            assert (await client.vectors([f"caller {number}"])).shape == (1, 384)
            self.answers_by[asyncio.current_task()] += 1


async def test_no_caller_sees_that_an_engine_was_killed() -> None:
    async with served("--engines", "2", "--log-level", "error") as heddle, Load(heddle) as load:
        engines = [read_flag(engine, "--listen") for engine in running(heddle.pid, "engine_svc")]
        assert len(engines) == 2
        for _ in range(3):
            os.kill(running(heddle.pid, "engine_svc")[0], signal.SIGKILL)
            await load.progress()
            await wait_until_ready(engines)
        await load.progress()


async def test_no_http_caller_sees_that_the_tokenizer_was_killed() -> None:
    async with served("--engine", "simulated", "--log-level", "error") as heddle, Load(heddle) as load:
        for task in load.tasks[1::3] + load.tasks[2::3]:
            task.cancel()  # those that call the tokenizer itself see it die
        load.tasks = load.tasks[::3]
        os.kill(running(heddle.pid, "tokenizer_svc")[0], signal.SIGKILL)
        await load.progress()


def read_flag(pid: int, flag: str) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return words[words.index(flag) + 1]


async def wait_until_ready(engines: list[str]) -> None:
    """An engine that was killed has to load the model again. If the other one is killed before, none is left, and calls
    fail after 10 seconds."""
    async with asyncio.timeout(START_S_MAX):
        while not all([await grpc_ready(engine, "heddle.v1.EngineService") for engine in engines]):
            await asyncio.sleep(0.1)
