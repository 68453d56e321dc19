"""Compressed bodies of requests: Content-Encoding gzip, deflate and zstd. Called by the app once a body has been read.

A body of a few kilobytes can become gigabytes, so it is inflated piece by piece and given up at the limit.
"""

import asyncio
import gzip
import io
import zlib
from collections.abc import Callable
from typing import Protocol

import zstandard

from http_gateway.errors import Failure
from http_gateway.message import Headers

PIECE_BYTES = 65_536
# Longer ones are inflated beside the event loop. As many can become megabytes, which takes a few milliseconds.
INLINE_BYTES_MAX = 2048
# A zstd frame may ask for as much memory to be inflated in; encoders ask for 8 MiB at most unless told otherwise.
WINDOW_BYTES_MAX = 8 << 20

WRONG = (zlib.error, gzip.BadGzipFile, EOFError, zstandard.ZstdError)


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...  # b"" at the end


class DeflateReader:
    """RFC 9110 means the format of zlib; some clients send what zlib calls raw."""

    def __init__(self, body: bytes) -> None:
        has_head = len(body) > 1 and body[0] & 0x0F == zlib.DEFLATED and (body[0] << 8 | body[1]) % 31 == 0
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS if has_head else -zlib.MAX_WBITS)
        self._left = body

    def read(self, size: int, /) -> bytes:
        if self._inflate.eof:
            return b""
        piece = self._inflate.decompress(self._left, size)
        self._left = self._inflate.unconsumed_tail
        if not piece and not self._inflate.eof:
            raise EOFError("it ends too early")
        return piece


def gzip_reader(body: bytes) -> Reader:
    return gzip.GzipFile(fileobj=io.BytesIO(body))


def zstd_reader(body: bytes) -> Reader:
    reader = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
    return reader.stream_reader(body, read_across_frames=True)


READERS: dict[str, Callable[[bytes], Reader]] = {
    "gzip": gzip_reader,
    "x-gzip": gzip_reader,
    "deflate": DeflateReader,
    "zstd": zstd_reader,
}


def coding_of(headers: Headers) -> str:
    """Of the body; "" where it is as it is. Raises a 415 for one that is not known, and for several."""
    coding = (headers.get("content-encoding") or "").strip().lower()
    if coding in ("", "identity"):
        return ""
    if coding in READERS:
        return coding
    known = "gzip, deflate, zstd"
    message = f"content-encoding {coding!r} is not taken: send {known}, or the JSON as it is"
    raise Failure(415, "unsupported_encoding", message, headers=[("accept-encoding", known)])


async def inflate(body: bytes, coding: str, bytes_max: int) -> bytes:
    """Raises a 400 for what is not of this coding, and a 413 for what becomes more than `bytes_max`."""
    if not body:
        return body  # which is refused as such
    try:
        reader = READERS[coding](body)
        if len(body) <= INLINE_BYTES_MAX:
            return read_all(reader, bytes_max)
        return await asyncio.to_thread(read_all, reader, bytes_max)
    except WRONG as error:
        raise Failure(400, "invalid_input", f"the body is not {coding} as its content-encoding says: {error}") from None


def read_all(reader: Reader, bytes_max: int) -> bytes:
    inflated = bytearray()
    while piece := reader.read(PIECE_BYTES):
        inflated += piece
        if len(inflated) > bytes_max:
            message = f"the body has more than {bytes_max} bytes once inflated, which is the limit"
            raise Failure(413, "too_large", message)
    return bytes(inflated)
