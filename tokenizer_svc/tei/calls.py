"""How the RPCs of tei.v1 run: the unary ones, the streams, and what becomes of streams when the pod drains.

Each servicer has one function `answer(call, request) -> response` per kind of request, and gives it to `unary` and to
`stream`. As in Text Embeddings Inference, a unary call is refused when the pod has too much to do, a stream waits, and
the first error of a stream ends it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol, TypeVar

import grpc

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.fairness import FlowNames
from heddle.rpc.interceptor import read_request_id
from heddle.rpc.stream import STREAM_BROKEN
from heddle.rpc.telemetry import request_id
from heddle.tei.v1 import tei_pb2
from tokenizer_svc.tei.call import Call, Context, InferenceSubmit
from tokenizer_svc.tei.in_order import InOrder, Message, going_away
from tokenizer_svc.tei.metadata import headers

IDLE_POLL_S = 0.01
OVERLOADED_WAIT_S_MIN = 0.05

log = logging.getLogger(__name__)


class Measured(Message, Protocol):
    @property
    def metadata(self) -> tei_pb2.Metadata: ...


Request = TypeVar("Request")
Response = TypeVar("Response", bound=Message)
MeasuredResponse = TypeVar("MeasuredResponse", bound=Measured)


class Calls:
    """All RPCs of tei.v1 at one pod."""

    def __init__(self, submit: InferenceSubmit, flow_names: FlowNames) -> None:
        self._submit = submit
        self._flow_names = flow_names
        self._streams: set[InOrder[Any, Any]] = set()
        self._draining = False

    async def unary(
        self, answer: Callable[[Call, Request], Awaitable[MeasuredResponse]], request: Request, context: Context
    ) -> MeasuredResponse:
        """Raises HeddleError. The response's metadata also go as headers, where callers may look for them."""
        async with refusals(context):
            response = await answer(Call(self._submit, self._flow_names, context), request)
        await context.send_initial_metadata(headers(response.metadata))
        return response

    async def stream(
        self,
        answer: Callable[[Call, Request], Awaitable[Response]],
        requests: AsyncIterator[Request],
        context: Context,
    ) -> None:
        """Writes the responses in the order of the requests. Raises the first HeddleError."""
        async with self.in_order(answer, requests, context) as responses:
            async for response in responses:
                try:
                    await context.write(response)
                except STREAM_BROKEN as error:
                    log.debug("cannot write: %s", error)
                    return

    @asynccontextmanager
    async def in_order(
        self,
        answer: Callable[[Call, Request], Awaitable[Response]],
        requests: AsyncIterator[Request],
        context: Context,
    ) -> AsyncIterator[AsyncIterator[Response]]:
        """The responses to a stream; leaving the block cancels what is still in flight."""
        if self._draining:
            raise going_away()
        request_id.set(read_request_id(context))
        call = Call(self._submit, self._flow_names, context)
        stream = InOrder(requests, lambda request: patiently(answer, call, request))
        self._streams.add(stream)
        try:
            async with refusals(context), aclosing(stream.responses()) as responses:
                yield responses
        finally:
            self._streams.discard(stream)

    async def announce_draining(self) -> None:
        """TEI's protocol has no word for it: streams are answered as far as they were read, then end UNAVAILABLE."""
        self._draining = True
        for stream in self._streams:
            stream.stop_reading()

    async def until_idle(self) -> None:
        """Returns when no stream is open."""
        while self._streams:
            await asyncio.sleep(IDLE_POLL_S)


@asynccontextmanager
async def refusals(context: Context) -> AsyncIterator[None]:
    """Errors leave with TEI's status: the one that the boundary of the server gives them, but for NaN, which TEI counts
    among the failures of its backend. Raises HeddleError or AbortError."""
    try:
        yield
    except HeddleError as error:
        if error.kind is ErrorKind.BAD_OUTPUT:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, error.message)
        raise


async def patiently(answer: Callable[[Call, Request], Awaitable[Response]], call: Call, request: Request) -> Response:
    """Tries again for as long as the pod has too much to do."""
    while True:
        try:
            return await answer(call, request)
        except HeddleError as error:
            if error.kind is not ErrorKind.OVERLOADED:
                raise
            wait_s = max(error.retry_after_ms / 1000, OVERLOADED_WAIT_S_MIN)
        await asyncio.sleep(wait_s)
