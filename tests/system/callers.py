"""Callers that go on calling while a test breaks pods behind a proxy."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from heddle.client import Client, UnaryClient
from heddle.rpc.errors import ErrorKind, HeddleError

BODY = {"model": "any", "input": ["warp", "weft"]}


@asynccontextmanager
async def load(*calls: Callable[[], Awaitable[Any]], callers: int = 3) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Calls again and again until the block ends, and raises the first error. Yields a function that waits for more
    answers of every caller."""
    answers = [0] * (len(calls) * callers)
    stopped = asyncio.Event()

    async def call_on(number: int) -> None:
        while not stopped.is_set():
            await calls[number % len(calls)]()
            answers[number] += 1

    tasks = [asyncio.create_task(call_on(number)) for number in range(len(answers))]

    async def progress() -> None:
        wanted = [count + 5 for count in answers]
        async with asyncio.timeout(60):
            while any(count < enough for count, enough in zip(answers, wanted, strict=True)):
                for task in tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)

    try:
        await progress()
        yield progress
        await progress()
    finally:
        stopped.set()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def callers(
    url: str, tokenizer: str, *, calls_may_fail: bool, posts_may_fail: bool = False
) -> AsyncIterator[list[Callable[[], Awaitable[Any]]]]:
    """Calls over HTTP, by unary gRPC calls, and over a stream to a tokenizer pod. Calls that may fail are not errors
    when their pod is lost. The stream repeats unanswered requests."""
    async with (
        httpx.AsyncClient(base_url=url, timeout=60) as http,
        Client(tokenizer) as client,
        UnaryClient(tokenizer) as unary,
    ):

        async def post() -> None:
            try:
                response = await http.post("/v1/embeddings", json=BODY)
            except httpx.RemoteProtocolError:
                if not posts_may_fail:
                    raise
                return
            assert response.status_code == 200 or (posts_may_fail and response.status_code == 502), response.text

        async def call() -> None:
            try:
                await unary.vectors(["warp"])
            except HeddleError as error:
                if not calls_may_fail or error.kind not in (ErrorKind.UNAVAILABLE, ErrorKind.CANCELLED):
                    raise

        yield [post, call, lambda: client.vectors(["warp"])]
