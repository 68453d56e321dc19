"""The HTTP server with bare sockets: hang-ups, bodies that are cut off or late, draining."""

import asyncio
import gc
import json
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from heddle.rpc.listening import bind_port
from heddle.rpc.waiting import poll_until
from http_gateway.web import bodies
from http_gateway.web.exchange import CHECK_S, Exchange
from http_gateway.web.sending import AT_ONCE_BYTES_MAX
from http_gateway.web.server import usable_connections
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


async def test_exchanges_that_were_watched_for_a_hang_up_are_freed(url: str) -> None:
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(connection(url)) for _ in range(10)]
        for _, writer in callers:
            writer.write(post("late")[:-1])
        await asyncio.sleep(4 * CHECK_S)
        for reader, writer in callers[:5]:  # the others hang up
            writer.write(b"}")
            assert await read_status(reader) == 200
    async with asyncio.timeout(10):
        await poll_until(lambda: not any(isinstance(one, Exchange) for one in gc.get_objects()))


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


@pytest.mark.parametrize("size", [100, 1_000_000])
async def test_a_body_that_pauses_is_given_up_and_its_connection_closed(tokenizer: str, size: int) -> None:
    async with gateway(tokenizer, body_pause_s_max=0.2) as url, connection(url) as (reader, writer):
        writer.write(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n{" % (PATH.encode(), size))
        assert await read_status(reader) == 408
        async with asyncio.timeout(10):
            await asyncio.gather(reader.read(), return_exceptions=True)


async def test_a_caller_on_a_slow_line_is_answered_while_there_is_room(tokenizer: str) -> None:
    """Its body comes at a few kilobytes per second, and takes longer than one pause may."""
    body = json.dumps({"input": "slow", "user": "x" * 70_000}).encode()
    async with gateway(tokenizer, body_pause_s_max=0.3) as url, connection(url) as (reader, writer):
        writer.write(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (PATH.encode(), len(body)))
        writer.write(body[:-10])
        for byte in body[-10:]:
            await asyncio.sleep(0.06)
            writer.write(bytes([byte]))
        assert await read_status(reader) == 200


async def test_bodies_that_never_come_take_no_place_from_others(
    tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "YOUNG_S", 0.05)
    async with gateway(tokenizer, requests_max=4, waiting_bodies_max=8) as url, AsyncExitStack() as waiting:
        for _ in range(8):
            _, writer = await waiting.enter_async_context(connection(url))
            writer.write(post("never")[:-3])
        await asyncio.sleep(0.1)
        async with httpx.AsyncClient(base_url=url) as http:
            answers = [await http.post(PATH, json={"input": "a neighbour"}) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200] * 4


async def test_operations_are_answered_when_all_connections_are_taken(tokenizer: str) -> None:
    with bind_port("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    operations = f"http://127.0.0.1:{port}"
    async with (
        gateway(tokenizer, connections_max=4, operations_port=port, api_keys=("secret",)) as url,
        AsyncExitStack() as taken,
        httpx.AsyncClient(base_url=operations) as http,
    ):
        for _ in range(8):
            _, writer = await taken.enter_async_context(connection(url))
            writer.write(post("never", "authorization: Bearer secret")[:-3])
        for path in ("/live", "/ready", "/metrics"):
            assert (await http.get(path)).status_code == 200
        refused = await http.post(PATH, json={"input": "a"}, headers={"authorization": "Bearer secret"})
        assert refused.status_code == 404
        assert "probes and metrics only" in refused.json()["error"]["message"]


def test_connections_are_no_more_than_files(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    limits = {resource.RLIMIT_NOFILE: (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    assert usable_connections(100) == 100
    assert limits == {resource.RLIMIT_NOFILE: (1024, 4096)}
    assert usable_connections(1000) == 1000
    assert limits == {resource.RLIMIT_NOFILE: (2000, 4096)}
    assert not caplog.text
    assert usable_connections(8192) == 2048
    assert "ulimit -n" in caplog.text


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
