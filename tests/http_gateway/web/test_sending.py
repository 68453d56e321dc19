"""Answers are counted until they have left, given up when nobody reads them, and sent in turns with others."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from http_gateway.web.sending import AT_ONCE_BYTES_MAX, send
from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.http_gateway.turns import Turns
from tests.slow_backend import SlowBackend

LONG = {"inputs": [f"text {number}" for number in range(2048)]}  # answered by about 9 MB
LONG_BYTES = 8 << 20


@asynccontextmanager
async def stalled_caller(url: str, path: str = "/embed") -> AsyncIterator[socket.socket]:
    """A caller that asks for a long answer, and never reads."""
    body = json.dumps(LONG).encode()
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        caller.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(caller, (host, int(port)))
        head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (path.encode(), len(body))
        await loop.sock_sendall(caller, head + body)
        yield caller


async def read_gauge(http: httpx.AsyncClient, name: str) -> float:
    lines = (await http.get("/metrics")).text.splitlines()
    return float(next(line for line in lines if line.startswith(f"heddle_gateway_{name} ")).split()[1])


async def wait_for_gauge(http: httpx.AsyncClient, name: str, holds: Callable[[float], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds(await read_gauge(http, name)):
            await asyncio.sleep(0.02)


async def test_an_answer_that_nobody_reads_is_counted_until_its_reader_is_gone(tokenizer: str) -> None:
    async with (
        gateway(tokenizer, answers_bytes_max=12 << 20) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        async with stalled_caller(url):
            await wait_for_gauge(http, "answers_bytes", lambda size: size > LONG_BYTES)
            assert (await read_gauge(http, "requests"), await read_gauge(http, "bodies_bytes")) == (1, 0)
            refused = await http.post("/embed", json=LONG)
            assert (refused.status_code, refused.json()["error_type"]) == (429, "Overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            assert await read_gauge(http, "answers_bytes") < 12 << 20  # the beginning of the refused answer is gone
            assert (await http.post("/embed", json={"inputs": "a"})).status_code == 200
        await wait_for_gauge(http, "answers_bytes", lambda size: size == 0)
        assert await read_gauge(http, "requests") == 0
        assert len((await http.post("/embed", json=LONG)).json()) == 2048


async def test_a_request_counts_until_its_answer_has_left(tokenizer: str) -> None:
    async with gateway(tokenizer, requests_max=1) as url, httpx.AsyncClient(base_url=url, timeout=30) as http:
        async with stalled_caller(url):
            await wait_for_gauge(http, "answers_bytes", lambda size: size > LONG_BYTES)
            assert (await http.post("/embed", json={"inputs": "a"})).status_code == 429
        await wait_for_gauge(http, "requests", lambda count: count == 0)
        assert (await http.post("/embed", json={"inputs": "a"})).status_code == 200


async def test_an_answer_that_alone_is_over_the_limit_is_too_large(tokenizer: str) -> None:
    async with (
        gateway(tokenizer, answers_bytes_max=1 << 20) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        assert (await http.post("/embed", json=LONG)).status_code == 413
        assert await read_gauge(http, "answers_bytes") == 0


async def test_an_answer_that_nobody_reads_is_given_up(tokenizer: str) -> None:
    async with (
        gateway(tokenizer, stall_s_max=0.2) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
        stalled_caller(url) as caller,
    ):
        await wait_for_gauge(http, "answers_bytes", lambda size: size > 0)
        await wait_for_gauge(http, "answers_bytes", lambda size: size == 0)
        assert await read_gauge(http, "requests") == 0
        assert 0 < await count_received(caller) < LONG_BYTES


async def count_received(caller: socket.socket) -> int:
    """Bytes until the connection is closed."""
    count = 0
    async with asyncio.timeout(10):
        while piece := await asyncio.get_running_loop().sock_recv(caller, 1 << 20):
            count += len(piece)
    return count


async def test_a_slow_reader_gets_all_of_it(tokenizer: str) -> None:
    """The reader takes longer than `stall_s_max` in all, but pauses for less. The kernel buffers megabytes, and reports
    room only when a third of them is free."""
    async with gateway(tokenizer, stall_s_max=1.5) as url, stalled_caller(url) as caller:
        size = began = 0.0
        while size < LONG_BYTES and (piece := await asyncio.get_running_loop().sock_recv(caller, 150_000)):
            began = began or time.monotonic()
            size += len(piece)
            await asyncio.sleep(0.04)
    assert size >= LONG_BYTES
    assert time.monotonic() - began > 1.5


async def test_a_reader_that_reads_nothing_does_not_hold_up_draining(tokenizer: str) -> None:
    stop = asyncio.Event()
    async with AsyncExitStack() as callers:
        async with gateway(tokenizer, stop=stop, stall_s_max=0.5, drain_s_max=20) as url:
            await callers.enter_async_context(stalled_caller(url))
            async with httpx.AsyncClient(base_url=url, timeout=30) as http:
                await wait_for_gauge(http, "answers_bytes", lambda size: size > 0)
            began = time.monotonic()
            stop.set()
        assert time.monotonic() - began < 5


async def test_hang_up_within_a_long_answer_ends_it_and_disturbs_nobody(tokenizer: str) -> None:
    async with gateway(tokenizer, stall_s_max=60) as url, httpx.AsyncClient(base_url=url, timeout=30) as http:
        await read_gauge(http, "requests")
        files = open_files()
        async with stalled_caller(url) as caller:
            await asyncio.get_running_loop().sock_recv(caller, 100)
            assert await read_gauge(http, "answers_bytes") > LONG_BYTES
        await wait_for_gauge(http, "answers_bytes", lambda size: size == 0)
        assert (await http.post("/embed", json={"inputs": "a"})).status_code == 200
        assert open_files() <= files


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize("pause_s", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
async def test_hang_up_before_a_long_answer_ends_it(tokenizer: str, pause_s: float) -> None:
    async with gateway(tokenizer, stall_s_max=60) as url, httpx.AsyncClient(base_url=url, timeout=30) as http:
        async with stalled_caller(url):
            await asyncio.sleep(pause_s)
        await asyncio.sleep(0.1)
        await wait_for_gauge(http, "requests", lambda count: count == 0)
        assert await read_gauge(http, "answers_bytes") == 0


@pytest.mark.parametrize("version", [1, 2])
async def test_long_answer_after_a_long_wait_arrives_whole(tmp_path: Path, version: int) -> None:
    """By then the connection is watched for a hang-up."""
    backend = SlowBackend()
    async with (
        engine_pod(tmp_path, backend) as engine,
        tokenizer_pod(tmp_path, engine) as tokenizer,
        gateway(tokenizer) as url,
        httpx.AsyncClient(base_url=url, http1=version == 1, http2=version == 2, timeout=30) as http,
    ):
        backend.is_warm = True
        for _ in range(2):
            answer = await http.post("/embed", json={"inputs": LONG["inputs"][:200]})
            assert len(answer.content) > AT_ONCE_BYTES_MAX
            assert np.array(answer.json()).shape == (200, 384)


class FakeProtocol:
    """Reads the file on a thread of its own, as granian does."""

    def __init__(self) -> None:
        self.body: asyncio.Future[bytes] | None = None

    def response_file(self, status: int, headers: list[tuple[str, str]], path: str) -> None:
        self.body = asyncio.ensure_future(asyncio.to_thread(Path(path).read_bytes))


async def test_sending_a_long_answer_yields_to_other_tasks() -> None:
    protocol: Any = FakeProtocol()
    parts = [bytes([number]) * AT_ONCE_BYTES_MAX for number in range(64)]
    with Turns() as turns:
        await send(protocol, 200, [], parts, stall_s_max=10, on_taken=lambda: None)
    assert turns.count >= len(parts)
    assert await protocol.body == b"".join(parts)
