"""The answers to a stream of requests, in the order of the requests, while many of them are in progress at once.

An answer that is ready early waits for those before it, but holds up no work: requests are read as long as fewer than
IN_FLIGHT_MAX are in progress. Answers that the caller has not taken yet are kept, because some callers write all their
requests before they read; beyond KEPT_BYTES_MAX no more requests are read.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.waiting import Changes

IN_FLIGHT_MAX = 1024  # as in TEI
KEPT_BYTES_MAX = 64 << 20


class Message(Protocol):
    def ByteSize(self) -> int: ...


Request = TypeVar("Request")
Response = TypeVar("Response", bound=Message)


class OrderedStream(Generic[Request, Response]):
    def __init__(self, requests: AsyncIterator[Request], answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._requests = requests
        self._answer = answer
        self._answers: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue()
        self._in_flight = 0
        self._kept_bytes = 0
        self._room = Changes()
        self._reader: asyncio.Task[None] | None = None

    async def responses(self) -> AsyncGenerator[Response, None]:
        """Iterate it once, and close it. Raises the error of the first request that fails, or UNAVAILABLE after
        `stop_reading`; in both cases the answers before it come first, and what is still in flight is cancelled."""
        self._reader = asyncio.create_task(self._read())
        # Not at the end of `_read`, which does not run at all if it is cancelled first.
        self._reader.add_done_callback(lambda _: self._answers.put_nowait(None))
        try:
            while (answer := await self._answers.get()) is not None:
                response = await answer
                yield response
                self._kept_bytes -= response.ByteSize()
                self._room.notify()
            if self._reader.cancelled():
                raise shutting_down_error()
            self._reader.result()
        finally:
            await self._cancel_all(self._reader)

    def stop_reading(self) -> None:
        """Requests that were read are still answered."""
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self) -> None:
        async for request in self._requests:
            self._in_flight += 1
            self._answers.put_nowait(asyncio.create_task(self._answer_one(request)))
            await self._room.wait_for(self._has_room)

    async def _answer_one(self, request: Request) -> Response:
        try:
            response = await self._answer(request)
            self._kept_bytes += response.ByteSize()
            return response
        finally:
            self._in_flight -= 1
            self._room.notify()

    def _has_room(self) -> bool:
        return self._in_flight < IN_FLIGHT_MAX and self._kept_bytes < KEPT_BYTES_MAX

    async def _cancel_all(self, reader: asyncio.Task[None]) -> None:
        tasks: list[asyncio.Task[Any]] = [reader]
        while not self._answers.empty():
            answer = self._answers.get_nowait()
            if answer is not None:
                tasks.append(answer)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def shutting_down_error() -> HeddleError:
    return HeddleError(ErrorKind.UNAVAILABLE, "the server is shutting down", retry_after_ms=1000)
