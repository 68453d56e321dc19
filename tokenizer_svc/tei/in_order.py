"""The answers to a stream of requests in the order of the requests, while many of them are worked on at once.

`calls.py` makes one for each streaming RPC. An answer that is ready early waits for those before it, but holds no work
up: requests are read as long as fewer than IN_FLIGHT_MAX are being worked on. Answers that the caller has not taken
yet are kept, as some callers write all their requests before they read; beyond KEPT_BYTES_MAX no more is read.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

from heddle.rpc.errors import ErrorKind, HeddleError

IN_FLIGHT_MAX = 1024  # as Text Embeddings Inference
KEPT_BYTES_MAX = 64 << 20


class Message(Protocol):
    def ByteSize(self) -> int: ...


Request = TypeVar("Request")
Response = TypeVar("Response", bound=Message)


class InOrder(Generic[Request, Response]):
    def __init__(self, requests: AsyncIterator[Request], answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._requests = requests
        self._answer = answer
        self._answers: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue()
        self._in_flight = 0
        self._kept_bytes = 0
        self._something_left = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def responses(self) -> AsyncGenerator[Response, None]:
        """To be iterated once, and closed. Raises what the first request that fails does, or UNAVAILABLE after
        `stop_reading`; either way the answers before it come first, and what is still in flight is cancelled."""
        self._reader = asyncio.create_task(self._read())
        try:
            while (answer := await self._answers.get()) is not None:
                response = await answer
                yield response
                self._kept_bytes -= response.ByteSize()
                self._something_left.set()
            await asyncio.wait([self._reader])
            if self._reader.cancelled():
                raise going_away()
            self._reader.result()
        finally:
            await self._abandon(self._reader)

    def stop_reading(self) -> None:
        """What was read is still answered."""
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self) -> None:
        try:
            async for request in self._requests:
                self._in_flight += 1
                self._answers.put_nowait(asyncio.create_task(self._answered(request)))
                await self._until_there_is_room()
        finally:
            self._answers.put_nowait(None)

    async def _answered(self, request: Request) -> Response:
        try:
            response = await self._answer(request)
            self._kept_bytes += response.ByteSize()
            return response
        finally:
            self._in_flight -= 1
            self._something_left.set()

    async def _until_there_is_room(self) -> None:
        while self._in_flight >= IN_FLIGHT_MAX or self._kept_bytes >= KEPT_BYTES_MAX:
            self._something_left.clear()
            await self._something_left.wait()

    async def _abandon(self, reader: asyncio.Task[None]) -> None:
        tasks: list[asyncio.Task[Any]] = [reader]
        while not self._answers.empty():
            answer = self._answers.get_nowait()
            if answer is not None:
                tasks.append(answer)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def going_away() -> HeddleError:
    return HeddleError(ErrorKind.UNAVAILABLE, "the server is shutting down", retry_after_ms=1000)
