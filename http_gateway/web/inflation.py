"""Decompresses request bodies: Content-Encoding gzip, deflate and zstd. The app calls it once it has read a body.

A few kilobytes can inflate to gigabytes, so a body is inflated in pieces, and inflation stops at the limit.
"""

import asyncio
import gzip
import io
import zlib
from collections.abc import Callable
from typing import Protocol

import zstandard

from http_gateway.errors import Failure
from http_gateway.web.message import Headers

PIECE_BYTES = 65_536
# Larger bodies are inflated in a thread. This many bytes can inflate to megabytes, which takes a few milliseconds.
INLINE_BYTES_MAX = 2048
# Largest window, and so memory, that a zstd frame may ask for. Encoders use 8 MiB at most by default.
WINDOW_BYTES_MAX = 8 << 20

DECODING_ERRORS = (zlib.error, gzip.BadGzipFile, EOFError, zstandard.ZstdError)


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...  # b"" at the end


class DeflateReader:
    """RFC 9110 defines `deflate` as the zlib format; some clients send raw deflate."""

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
            raise EOFError("the data ends too early")
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
    """The coding of the body; "" if it is not compressed. Raises a 415 for an unknown coding or several codings."""
    coding = (headers.get("content-encoding") or "").strip().lower()
    if coding in ("", "identity"):
        return ""
    if coding in READERS:
        return coding
    known = "gzip, deflate, zstd"
    message = f"content-encoding {coding!r} is not supported: use {known} or none"
    raise Failure(415, "unsupported_encoding", message, headers=[("accept-encoding", known)])


async def inflate(body: bytes, coding: str, bytes_max: int) -> bytes:
    """Raises a 400 for a body that is not of this coding, and a 413 for one that inflates to more than `bytes_max`."""
    if not body:
        return body  # the JSON decoder refuses it
    try:
        reader = READERS[coding](body)
        if len(body) <= INLINE_BYTES_MAX:
            return read_all(reader, bytes_max)
        return await asyncio.to_thread(read_all, reader, bytes_max)
    except DECODING_ERRORS as error:
        message = f"the body is not {coding}, which its content-encoding states: {error}"
        raise Failure(400, "invalid_input", message) from None


def read_all(reader: Reader, bytes_max: int) -> bytes:
    inflated = bytearray()
    while piece := reader.read(PIECE_BYTES):
        inflated += piece
        if len(inflated) > bytes_max:
            message = f"the decompressed body has more than {bytes_max} bytes, which is the limit"
            raise Failure(413, "too_large", message)
    return bytes(inflated)
