"""An answer on its way out: handed over at once if it is short, otherwise as fast as its reader takes it.

`http_gateway.web.server` calls `send` for each answer. Granian takes whatever it is given, and says nothing of whether
anybody reads it: its streams have no bound. What it does read at the pace of its reader is a file. So a long answer is
given to it as one, the far end of a pipe, and what has not left yet is here, where it is counted and can be given up.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable
from typing import Self

from granian.rsgi import HTTPProtocol  # type: ignore[attr-defined]  # public, but not marked so

from http_gateway.web.message import ResponseBody, bytes_of

# Longer answers go through a pipe that holds as many bytes, or fewer: so that one which is written whole is being read.
AT_ONCE_BYTES_MAX = 128 << 10

# Granian opens a file within milliseconds, or never.
TAKEN_S_MAX = 60.0

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
    """Returns when nearly all of it has left, or its reader is gone or has taken nothing for so many seconds. Before
    `on_taken` is called, granian may have dropped the answer without a word, because the caller has hung up."""
    size = bytes_of(body)
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
    """Closed at the end of the `with`. If less was written than was promised, granian closes the connection."""

    def __init__(self, on_taken: Callable[[], None]) -> None:
        """`on_taken` is called when somebody has opened the far end."""
        self._far_end, self._near_end = os.pipe()
        os.set_blocking(self._near_end, False)
        self._capacity = capacity_of(self._near_end)
        self._written = 0
        self._on_taken = on_taken
        self._is_taken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._near_end)
        if not self._is_taken:  # its number must not be another answer's when granian opens it after all
            asyncio.get_running_loop().call_later(TAKEN_S_MAX, os.close, self._far_end)

    @property
    def path(self) -> str:
        """For whoever reads it."""
        return f"/dev/fd/{self._far_end}"

    async def write(self, part: bytes, stall_s_max: float) -> None:
        """In turns with others, each of a pipe's length. Raises TimeoutError, and BrokenPipeError for no reader."""
        left = memoryview(part)
        while left:
            try:
                count = os.write(self._near_end, left)
            except BlockingIOError:
                count = 0
            left = left[count:]
            self._note(count)
            await self._until_there_is_room(stall_s_max)

    def _note(self, count: int) -> None:
        """More than it holds has been written: the far end is taken. That we have it too would hide that it is left."""
        self._written += count
        if self._written > self._capacity and not self._is_taken:
            self._is_taken = True
            os.close(self._far_end)
            self._on_taken()

    async def _until_there_is_room(self, stall_s_max: float) -> None:
        loop = asyncio.get_running_loop()
        room = asyncio.Event()
        loop.add_writer(self._near_end, room.set)
        try:
            async with asyncio.timeout(stall_s_max):
                await room.wait()
        finally:
            loop.remove_writer(self._near_end)


def capacity_of(pipe: int) -> int:
    """Of a pipe that is made as large as it should be, where that can be set."""
    try:
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, AT_ONCE_BYTES_MAX)
    except (AttributeError, OSError):  # not Linux, or its user has too many of them
        return AT_ONCE_BYTES_MAX
