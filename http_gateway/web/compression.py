"""Compressed answers: zstd, and gzip for callers that ask for it and not for zstd. Used by the rendering.

Compression is fast rather than small: answers are mostly floats, of which a fifth can be saved at best.
"""

import asyncio
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import zstandard

from http_gateway.web.message import ResponseBody
from http_gateway.web.negotiation import qualities

# Beyond it compression leaves the event loop: this takes about a millisecond.
INLINE_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Compression:
    name: str  # of the content coding
    compress: Callable[[bytes], bytes]

    async def compressed(self, body: ResponseBody) -> bytes:
        if isinstance(body, bytes) and len(body) <= INLINE_BYTES_MAX:
            return self.compress(body)
        return await asyncio.to_thread(lambda: self.compress(body if isinstance(body, bytes) else b"".join(body)))


def zstd(body: bytes) -> bytes:
    # A compressor is not to be shared between threads, and making one is cheap.
    return zstandard.ZstdCompressor(level=1).compress(body)


def gzipped(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)


CODINGS = (Compression("zstd", zstd), Compression("gzip", gzipped))


@lru_cache(maxsize=1024)
def compression_for(accept_encoding: str | None) -> Compression | None:
    """The one that the caller likes best, and zstd of those that it likes equally."""
    wanted = qualities(accept_encoding)
    best = max(CODINGS, key=lambda coding: wanted.get(coding.name, 0.0))
    return best if wanted.get(best.name, 0.0) > 0 else None
