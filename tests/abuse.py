"""Callers that abuse a gateway over its sockets. Tests and the soak use them."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from socket import create_connection

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

PATH = "/v1/embeddings"
# Of a request whose body never comes.
HEAD = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n".encode()

# Opened by this process as well as by the gateway.
CONNECTIONS = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 500)


@asynccontextmanager
async def open_connections(port: int, count: int, sent: bytes = b"") -> AsyncIterator[list[asyncio.StreamReader]]:
    raise_file_limit()
    opened = []
    try:
        for start in range(0, count, 500):
            some = (asyncio.open_connection("127.0.0.1", port) for _ in range(min(500, count - start)))
            opened += await asyncio.gather(*some)
            for _, writer in opened[start:]:
                writer.write(sent)
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()


def raise_file_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def open_stream(number: int, encoder: hpack.Encoder) -> bytes:
    names = {":method": "POST", ":scheme": "http", ":authority": "x", ":path": PATH}
    return HeadersFrame(number, encoder.encode(list(names.items())), flags=["END_HEADERS"]).serialize()


def repeat(*frames: Frame, first: bytes = b"") -> Callable[[], Iterator[bytes]]:
    many = b"".join(frame.serialize() for frame in frames) * 1000

    def send() -> Iterator[bytes]:
        yield first
        while True:
            yield many

    return send


def send_resets() -> Iterator[bytes]:
    """Each stream is a whole request that is cancelled at once."""
    encoder = hpack.Encoder()
    for number in range(1, 1 << 30, 2):
        body = DataFrame(number, b'{"input":"a"}', flags=["END_STREAM"]).serialize()
        yield open_stream(number, encoder) + body + RstStreamFrame(number, error_code=8).serialize()


def send_streams() -> Iterator[bytes]:
    """More bodies than may wait, and none comes."""
    encoder = hpack.Encoder()
    for number in range(1, 2000, 2):
        yield open_stream(number, encoder)
    while True:
        time.sleep(0.1)
        yield b""


UNFINISHED = HeadersFrame(1, hpack.Encoder().encode([(":method", "POST")])).serialize()

FLOODS = {
    "ping": repeat(PingFrame(0, b"12345678")),
    "settings": repeat(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535})),
    "continuation": repeat(ContinuationFrame(1, b""), first=UNFINISHED),
    "empty data": repeat(DataFrame(1, b""), first=open_stream(1, hpack.Encoder())),
    "rapid reset": send_resets,
    "streams": send_streams,
}


def flood(port: int, send: Callable[[], Iterator[bytes]], until: float) -> None:
    """Connects again whenever the gateway ends the connection. It reads no answers. `until` is a time.monotonic()."""
    while time.monotonic() < until:
        with suppress(OSError), create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
            for frames in send():
                connection.sendall(frames)
                if time.monotonic() > until:
                    break
