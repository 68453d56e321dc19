"""Sends an answer: a short one at once, a long one as fast as its reader takes it. Called by the server.

granian takes whatever it is given into a queue without a bound, and does not say whether anybody reads it. Only a file
is read at the pace of the reader. So a long answer is given to granian as the far end of a pipe: what has not left yet
stays here, where it is counted and can be given up.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable
from typing import Self

from granian.rsgi import HTTPProtocol  # type: ignore[attr-defined]  # public, but not marked so

from http_gateway.web.message import ResponseBody, body_size

# Longer answers go through a pipe, which holds this many bytes or fewer: once more was written, granian is reading it.
AT_ONCE_BYTES_MAX = 128 << 10

# granian opens a file within milliseconds, or never.
OPENED_S_MAX = 60.0

log = logging.getLogger(__name__)


async def send(
    protocol: HTTPProtocol,
    status: int,
    headers: list[tuple[str, str]],
    body: ResponseBody,
    *,
    stall_s_max: float,
    on_taken: Callable[[], None],
) -> None:
    """Returns when nearly all of it has left, when the reader is gone, or when it has read nothing for `stall_s_max`.
    Until `on_taken` is called, granian may drop the answer without a word, because the caller has hung up."""
    size = body_size(body)
    if size <= AT_ONCE_BYTES_MAX:
        protocol.response_bytes(status, headers, body if isinstance(body, bytes) else b"".join(body))
        on_taken()
        return
    with Pipe(on_taken) as pipe:
        protocol.response_file(status, [*headers, ("content-length", str(size))], pipe.path)
        try:
            for part in [body] if isinstance(body, bytes) else body:
                await pipe.write(part, stall_s_max)
        except TimeoutError:
            log.warning("gave up an answer of %d bytes: its reader took nothing for %g s", size, stall_s_max)
        except BrokenPipeError:
            log.debug("the reader of an answer of %d bytes is gone", size)


class Pipe:
    """Closed at the end of the `with`. If less was written than the headers promised, granian closes the connection."""

    def __init__(self, on_taken: Callable[[], None]) -> None:
        """`on_taken` is called once somebody has opened the far end."""
        self._far_end, self._near_end = os.pipe()
        os.set_blocking(self._near_end, False)
        self._capacity = set_capacity(self._near_end)
        self._written = 0
        self._on_taken = on_taken
        self._is_taken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._near_end)
        if not self._is_taken:  # if granian opens it after all, its number must not be another answer's by then
            asyncio.get_running_loop().call_later(OPENED_S_MAX, os.close, self._far_end)

    @property
    def path(self) -> str:
        """The file that the reader opens."""
        return f"/dev/fd/{self._far_end}"

    async def write(self, part: bytes, stall_s_max: float) -> None:
        """Others have their turn after each pipeful. Raises TimeoutError, and BrokenPipeError if nobody reads."""
        left = memoryview(part)
        while left:
            try:
                count = os.write(self._near_end, left)
            except BlockingIOError:
                count = 0
            left = left[count:]
            self._written += count
            if self._written > self._capacity and not self._is_taken:
                self._is_taken = True
                os.close(self._far_end)  # otherwise we would not notice that the reader has closed it
                self._on_taken()
            await self._wait_for_room(stall_s_max)

    async def _wait_for_room(self, stall_s_max: float) -> None:
        loop = asyncio.get_running_loop()
        room = asyncio.Event()
        loop.add_writer(self._near_end, room.set)
        try:
            async with asyncio.timeout(stall_s_max):
                await room.wait()
        finally:
            loop.remove_writer(self._near_end)


def set_capacity(pipe: int) -> int:
    """Makes a pipe hold AT_ONCE_BYTES_MAX where that can be set, and returns the most that it may hold."""
    try:
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, AT_ONCE_BYTES_MAX)
    except (AttributeError, OSError):  # not Linux, or the user has too many large pipes
        return AT_ONCE_BYTES_MAX
