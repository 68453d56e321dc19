"""Connections near their limit: idle ones are closed, those with a request are kept, and new ones are answered."""

import asyncio
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from http_gateway.web import bodies, crowd
from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.http_gateway.web.test_server import connection, post, read_status
from tests.slow_backend import SlowBackend

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not say which connections are idle")

LIVE = b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n"


async def test_idle_connections_make_room_and_requests_keep_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "IDLE_MS_MIN", 50)
    backend = SlowBackend()
    async with (
        engine_pod(tmp_path, backend) as engine,
        tokenizer_pod(tmp_path, engine) as tokenizer,
        gateway(tokenizer, connections_max=32) as url,
        AsyncExitStack() as idle,
        connection(url) as (reader, writer),
    ):
        backend.is_warm = True
        writer.write(post("slow"))
        crowded = [await idle.enter_async_context(connection(url)) for _ in range(100)]
        for _ in range(3):
            async with connection(url) as (answer, request):
                request.write(LIVE)
                assert await read_status(answer) == 200
        assert await read_status(reader) == 200
        closed = 0
        for end, _ in crowded:
            with suppress(TimeoutError):
                closed += await asyncio.wait_for(end.read(), 0.01) == b""
        assert 70 <= closed < 100


def test_a_file_that_is_another_connection_by_now_is_left_alone() -> None:
    gone = crowd.Connection(file=0, peer=("127.0.0.1", 1), idle_ms=5000, silent_ms=5000)
    assert not crowd.close(gone)


async def test_bodies_that_never_come_leave_connections_to_others(
    tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "IDLE_MS_MIN", 50)
    monkeypatch.setattr(bodies, "YOUNG_S", 0.05)
    async with gateway(tokenizer, connections_max=16) as url, AsyncExitStack() as waiting:
        for _ in range(32):
            _, writer = await waiting.enter_async_context(connection(url))
            writer.write(post("never")[:-3])
        async with asyncio.timeout(10):
            for _ in range(3):
                async with connection(url) as (answer, request):
                    request.write(LIVE)
                    assert await read_status(answer) == 200
