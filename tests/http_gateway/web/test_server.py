"""The HTTP server with bare sockets: both versions of HTTP, hang-ups, bodies that are cut off or late, draining."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from http_gateway.web.sending import AT_ONCE_BYTES_MAX
from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.slow_backend import SlowBackend

PATH = "/v1/embeddings"


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    yield reader, writer
    writer.close()


def post(text: str, *headers: str) -> bytes:
    body = json.dumps({"input": text})
    lines = (f"POST {PATH} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers)
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def read_status(reader: asyncio.StreamReader) -> int:
    """Reads the next answer to its end and returns its status."""
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(line.partition(":")[2] for line in head.splitlines() if line.startswith("content-length"))
        await reader.readexactly(int(length))
    return int(head.split()[1])


async def test_http_2_needs_no_upgrade_and_carries_many_requests(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, http1=False, http2=True, timeout=30) as http:
        answers = await asyncio.gather(*(http.post(PATH, json={"input": str(n)}) for n in range(50)))
    assert {(answer.status_code, answer.http_version) for answer in answers} == {(200, "HTTP/2")}


async def test_connection_is_kept_for_further_requests(url: str) -> None:
    async with connection(url) as (reader, writer):
        for text in ("first", "", "third"):
            writer.write(post(text))
            assert await read_status(reader) == (200 if text else 400)


@pytest.mark.parametrize("version", [1, 2])
async def test_long_answer_arrives_whole_over_both_versions(url: str, version: int) -> None:
    texts = [f"text {number}" for number in range(2048)]
    async with httpx.AsyncClient(base_url=url, http1=version == 1, http2=version == 2, timeout=30) as http:
        for coding in ("identity", "zstd"):
            answer = await http.post("/embed", json={"inputs": texts}, headers={"accept-encoding": coding})
            assert int(answer.headers["content-length"]) > AT_ONCE_BYTES_MAX
            assert np.array(answer.json()).shape == (2048, 384)
            assert (await http.post("/embed", json={"inputs": "a"})).status_code == 200


async def test_hang_up_takes_queued_work_from_the_engine(tmp_path: Path) -> None:
    backend = SlowBackend()
    async with (
        engine_pod(tmp_path, backend) as engine,
        tokenizer_pod(tmp_path, engine) as tokenizer,
        gateway(tokenizer) as url,
        connection(url) as (reader, writer),
    ):
        backend.is_warm = True
        writer.write(post("occupies the engine"))
        while not backend.ran:
            await asyncio.sleep(0.005)
        for number in range(10):
            async with connection(url) as (_, doomed):
                doomed.write(post(f"nobody waits for this {number}"))
                await asyncio.sleep(0.01)
        assert await read_status(reader) == 200
        writer.write(post("the next one"))
        assert await read_status(reader) == 200
        assert backend.ran == 2


@pytest.mark.parametrize("head", [b"content-length: 9000000", b"transfer-encoding: chunked"])
async def test_body_beyond_the_limit_is_refused_as_soon_as_that_is_known(url: str, head: bytes) -> None:
    async with connection(url) as (reader, writer):
        writer.write(b"POST %b HTTP/1.1\r\nhost: x\r\n%b\r\n\r\n" % (PATH.encode(), head))
        if b"chunked" in head:
            for _ in range(9):
                writer.write(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
        assert await read_status(reader) == 413


async def test_a_body_that_is_refused_is_read_and_dropped_so_that_its_sender_sees_why(url: str) -> None:
    """A connection that is closed while bytes arrive is reset, and what was on its way to the caller is lost."""
    async with connection(url) as (reader, writer):
        writer.write(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n" % PATH.encode())
        for _ in range(90):
            writer.write(b"x" * 100_000)
            await writer.drain()
            await asyncio.sleep(0.002)
        assert await read_status(reader) == 413
        writer.write(post("the next one"))
        assert await read_status(reader) == 200


async def test_two_lengths_for_one_body_are_refused(url: str) -> None:
    async with connection(url) as (reader, writer):
        writer.write(post("a", "transfer-encoding: chunked"))
        assert await read_status(reader) == 400


async def test_body_that_is_cut_off_is_never_run(tmp_path: Path) -> None:
    backend = SlowBackend()
    async with (
        engine_pod(tmp_path, backend) as engine,
        tokenizer_pod(tmp_path, engine) as tokenizer,
        gateway(tokenizer) as url,
    ):
        backend.is_warm = True
        async with connection(url) as (_, writer):
            writer.write(post("whole")[:-3])
            await writer.drain()
        await asyncio.sleep(0.2)
        assert backend.ran == 0


async def test_body_that_does_not_come_is_not_waited_for(tokenizer: str) -> None:
    async with gateway(tokenizer, timeout_s=0.3) as url, connection(url) as (reader, writer):
        writer.write(post("slow")[:-3])
        assert await read_status(reader) == 504


async def test_request_ends_at_its_deadline(tmp_path: Path) -> None:
    backend = SlowBackend()
    async with (
        engine_pod(tmp_path, backend) as engine,
        tokenizer_pod(tmp_path, engine) as tokenizer,
        gateway(tokenizer, timeout_s=0.2) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        backend.is_warm = True
        answer = await http.post(PATH, json={"input": "too slow"})
        assert answer.status_code == 504
        assert answer.json()["error"]["type"] == "timeout_error"


async def test_stopping_gateway_finishes_what_it_accepted(tmp_path: Path) -> None:
    backend, stop = SlowBackend(), asyncio.Event()
    async with engine_pod(tmp_path, backend) as engine, tokenizer_pod(tmp_path, engine) as tokenizer:
        async with gateway(tokenizer, stop=stop) as url, connection(url) as (reader, writer):
            backend.is_warm = True
            writer.write(post("last"))
            while not backend.ran:
                await asyncio.sleep(0.005)
            stop.set()
            assert await read_status(reader) == 200
        with pytest.raises(OSError, match=r"Connect|refused|111"):
            async with connection(url):
                pytest.fail("still listening")
