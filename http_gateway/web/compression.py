"""Compressed bodies: decompresses those of requests (gzip, deflate, zstd) and compresses answers (zstd, gzip)."""

import asyncio
import gzip
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import zstandard

from http_gateway.errors import Failure
from http_gateway.web.message import Headers, ResponseBody

# Larger answers are compressed in a thread: this many bytes take about a millisecond.
COMPRESSED_INLINE_BYTES_MAX = 65_536
# Larger requests are decompressed in a thread: this many bytes can become megabytes, which take a few milliseconds.
DECOMPRESSED_INLINE_BYTES_MAX = 2048

PIECE_BYTES = 65_536
# Largest window, and so memory, that a zstd frame may ask for. By default, encoders use 8 MiB at most.
WINDOW_BYTES_MAX = 8 << 20

DECODING_ERRORS = (zlib.error, gzip.BadGzipFile, EOFError, zstandard.ZstdError)


@dataclass(frozen=True, slots=True)
class Compression:
    """Fast rather than small: answers are mostly floats, of which a fifth can be saved at best."""

    name: str  # of the content coding
    compress_bytes: Callable[[bytes], bytes]

    async def compress(self, body: ResponseBody) -> bytes:
        if isinstance(body, bytes) and len(body) <= COMPRESSED_INLINE_BYTES_MAX:
            return self.compress_bytes(body)
        return await asyncio.to_thread(lambda: self.compress_bytes(body if isinstance(body, bytes) else b"".join(body)))


def compress_zstd(body: bytes) -> bytes:
    # Threads must not share a compressor, and making one is cheap.
    return zstandard.ZstdCompressor(level=1).compress(body)


def compress_gzip(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)


COMPRESSIONS = (Compression("zstd", compress_zstd), Compression("gzip", compress_gzip))


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...  # b"" at the end


class DeflateReader:
    """RFC 9110 defines `deflate` as the zlib format; some clients send raw deflate."""

    def __init__(self, body: bytes) -> None:
        has_header = len(body) > 1 and body[0] & 0x0F == zlib.DEFLATED and (body[0] << 8 | body[1]) % 31 == 0
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        self._left = body

    def read(self, size: int, /) -> bytes:
        if self._inflate.eof:
            return b""
        piece = self._inflate.decompress(self._left, size)
        self._left = self._inflate.unconsumed_tail
        if not piece and not self._inflate.eof:
            raise EOFError("the data ends too early")
        return piece


def read_gzip(body: bytes) -> Reader:
    return gzip.GzipFile(fileobj=io.BytesIO(body))


def read_zstd(body: bytes) -> Reader:
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
    return decompressor.stream_reader(body, read_across_frames=True)


READERS: dict[str, Callable[[bytes], Reader]] = {
    "gzip": read_gzip,
    "x-gzip": read_gzip,
    "deflate": DeflateReader,
    "zstd": read_zstd,
}


def content_coding(headers: Headers) -> str:
    """The coding of the body; "" if it is not compressed. Raises a 415 for an unknown coding or several codings."""
    coding = (headers.get("content-encoding") or "").strip().lower()
    if coding in ("", "identity"):
        return ""
    if coding in READERS:
        return coding
    known = "gzip, deflate, zstd"
    message = f"content-encoding {coding!r} is not supported: use {known} or none"
    raise Failure(415, "unsupported_encoding", message, headers=[("accept-encoding", known)])


async def decompress(body: bytes, coding: str, bytes_max: int) -> bytes:
    """Raises a 400 for a body that is not of this coding, and a 413 for one of more than `bytes_max` bytes: a few
    kilobytes can become gigabytes, so the body is decompressed in pieces, and not further than the limit."""
    if not body:
        return body  # the JSON decoder refuses it
    try:
        reader = READERS[coding](body)
        if len(body) <= DECOMPRESSED_INLINE_BYTES_MAX:
            return read_all(reader, bytes_max)
        return await asyncio.to_thread(read_all, reader, bytes_max)
    except DECODING_ERRORS as error:
        message = f"the body is not {coding}, which its content-encoding states: {error}"
        raise Failure(400, "invalid_input", message) from None


def read_all(reader: Reader, bytes_max: int) -> bytes:
    decompressed = bytearray()
    while piece := reader.read(PIECE_BYTES):
        decompressed += piece
        if len(decompressed) > bytes_max:
            message = f"the decompressed body has more than {bytes_max} bytes, which is the limit"
            raise Failure(413, "too_large", message)
    return bytes(decompressed)
