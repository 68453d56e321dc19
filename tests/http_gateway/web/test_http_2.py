"""Streams of an HTTP/2 connection: one that is cancelled or slow ends alone."""

import asyncio
from pathlib import Path

import httpx
from h2.connection import H2Connection
from h2.events import ResponseReceived

from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.http_gateway.web.test_server import PATH, connection, post, read_status
from tests.slow_backend import SlowBackend

STREAM_HEADERS = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", PATH)]


async def test_it_needs_no_upgrade_and_carries_many_requests(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, http1=False, http2=True, timeout=30) as http:
        answers = await asyncio.gather(*(http.post(PATH, json={"input": str(n)}) for n in range(50)))
    assert {(answer.status_code, answer.http_version) for answer in answers} == {(200, "HTTP/2")}


async def test_cancelled_streams_take_only_their_work_from_the_engine(
    tmp_path: Path,
) -> None:
    backend = SlowBackend()
    async with (
        engine_pod(tmp_path, backend) as engine,
        tokenizer_pod(tmp_path, engine) as tokenizer,
        gateway(tokenizer) as url,
        connection(url) as (reader, writer),
        connection(url) as (stream_reader, stream_writer),
    ):
        backend.is_warm = True
        writer.write(post("occupies the engine"))
        while not backend.ran:
            await asyncio.sleep(0.005)
        caller = H2Connection()
        caller.initiate_connection()
        for stream in range(1, 21, 2):
            caller.send_headers(stream, STREAM_HEADERS)
            caller.send_data(stream, b'{"input": "stream %d"}' % stream, end_stream=True)
        stream_writer.write(caller.data_to_send())
        await asyncio.sleep(0.02)
        for stream in range(3, 21, 2):
            caller.reset_stream(stream)
        stream_writer.write(caller.data_to_send())
        assert await read_status(reader) == 200
        assert await read_stream_status(caller, stream_reader) == "200"
        assert backend.ran == 2


async def test_only_the_stream_of_a_slow_body_ends(tokenizer: str) -> None:
    async with gateway(tokenizer, body_pause_s_max=0.2) as url, connection(url) as (reader, writer):
        caller = H2Connection()
        caller.initiate_connection()
        caller.send_headers(1, STREAM_HEADERS)
        writer.write(caller.data_to_send())
        assert await read_stream_status(caller, reader) == "408"
        caller.send_headers(3, STREAM_HEADERS)
        caller.send_data(3, b'{"input": "the next one"}', end_stream=True)
        writer.write(caller.data_to_send())
        assert await read_stream_status(caller, reader) == "200"


async def read_stream_status(caller: H2Connection, reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(10):
        while received := await reader.read(65_536):
            for event in caller.receive_data(received):
                if isinstance(event, ResponseReceived):
                    return dict(event.headers)[b":status"].decode()
    raise ConnectionError("the connection has ended")
