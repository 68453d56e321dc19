"""How the RPCs of tei.v1 run: unary calls, streams, and what becomes of streams when the pod drains.

Each kind of request has one function `answer(call, request) -> response`, from which `unary` and `stream` make the
handlers of its RPCs. As in TEI, a unary call is refused when the pod is overloaded, a stream waits, and the first error
of a stream ends it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import grpc

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.fairness import FlowNames
from heddle.rpc.interceptor import read_request_id
from heddle.rpc.stream import STREAM_BROKEN, ServerSubmit
from heddle.rpc.unary import call_deadline, read_context, submit_and_wait
from heddle.rpc.waiting import poll_until
from heddle.tei.v1 import tei_pb2
from heddle.telemetry.logs import request_id
from heddle.v1 import inference_pb2
from tokenizer_svc.tei.ordered_stream import Message, OrderedStream, shutting_down_error

OVERLOADED_WAIT_S_MIN = 0.05

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
InferenceSubmit = ServerSubmit[inference_pb2.InferenceItem, inference_pb2.InferenceOutcome]
Request = TypeVar("Request")
Response = TypeVar("Response", bound=Message)


class Call:
    """One RPC of a caller. Its items share the RPC's deadline, and one flow, so that a long stream has one share of the
    engines."""

    def __init__(self, submit: InferenceSubmit, flow_names: FlowNames, context: Context) -> None:
        """Raises INVALID_INPUT for malformed metadata."""
        self._submit = submit
        self._item_context = read_context(context)
        self._item_context.flow = flow_names.complete(self._item_context.flow)
        self._deadline = call_deadline(context)

    async def infer(self, item: inference_pb2.InferenceItem) -> inference_pb2.InferenceOutcome:
        """Raises HeddleError; cancelling the caller cancels the item."""
        item.context.CopyFrom(self._item_context)
        return await submit_and_wait(self._submit, item, self._deadline)


Answer = Callable[[Call, Request], Awaitable[Response]]


class Calls:
    """All RPCs of tei.v1 at one pod."""

    def __init__(self, submit: InferenceSubmit, flow_names: FlowNames) -> None:
        self._submit = submit
        self._flow_names = flow_names
        self._streams: set[OrderedStream[Any, Any]] = set()
        self._draining = False

    def unary(self, answer: Answer[Request, Response]) -> Callable[[Request, Context], Awaitable[Response]]:
        """A handler. The metadata of its responses are also sent as headers, where callers may look for them."""

        async def handle(request: Request, context: Context) -> Response:
            async with tei_status(context):
                response = await answer(self._open_call(context), request)
            metadata = getattr(response, "metadata", None)
            if metadata is not None:
                await context.send_initial_metadata(to_headers(metadata))
            return response

        return handle

    def stream(self, answer: Answer[Request, Response]) -> Callable[[AsyncIterator[Request], Context], Awaitable[None]]:
        """A handler that writes the responses in the order of the requests. Raises the first HeddleError."""

        async def handle(requests: AsyncIterator[Request], context: Context) -> None:
            async with self.open_stream(answer, requests, context) as responses:
                async for response in responses:
                    try:
                        await context.write(response)
                    except STREAM_BROKEN as error:
                        log.debug("cannot write: %s", error)
                        return

        return handle

    @asynccontextmanager
    async def open_stream(
        self, answer: Answer[Request, Response], requests: AsyncIterator[Request], context: Context
    ) -> AsyncIterator[AsyncIterator[Response]]:
        """The responses to a stream; leaving the block cancels what is still in flight."""
        if self._draining:
            raise shutting_down_error()
        request_id.set(read_request_id(context))
        call = self._open_call(context)
        stream = OrderedStream(requests, lambda request: retry_while_overloaded(answer, call, request))
        self._streams.add(stream)
        try:
            async with tei_status(context), aclosing(stream.responses()) as responses:
                yield responses
        finally:
            self._streams.discard(stream)

    async def announce_draining(self) -> None:
        """TEI's protocol cannot announce it: streams are answered as far as they were read, then end UNAVAILABLE."""
        self._draining = True
        for stream in self._streams:
            stream.stop_reading()

    async def until_idle(self) -> None:
        """Returns when no stream is open."""
        await poll_until(lambda: not self._streams)

    def _open_call(self, context: Context) -> Call:
        return Call(self._submit, self._flow_names, context)


@asynccontextmanager
async def tei_status(context: Context) -> AsyncIterator[None]:
    """Gives errors TEI's status, which differs from ours only for NaN: TEI counts it as a failure of its backend.
    Raises HeddleError or AbortError."""
    try:
        yield
    except HeddleError as error:
        if error.kind is ErrorKind.BAD_OUTPUT:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, error.message)
        raise


async def retry_while_overloaded(answer: Answer[Request, Response], call: Call, request: Request) -> Response:
    while True:
        try:
            return await answer(call, request)
        except HeddleError as error:
            if error.kind is not ErrorKind.OVERLOADED:
                raise
            wait_s = max(error.retry_after_ms / 1000, OVERLOADED_WAIT_S_MIN)
        await asyncio.sleep(wait_s)


def to_headers(metadata: tei_pb2.Metadata) -> tuple[tuple[str, str], ...]:
    """TEI's headers, with times in whole milliseconds."""
    times = {
        "x-compute-time": metadata.total_time_ns,
        "x-total-time": metadata.total_time_ns,
        "x-tokenization-time": metadata.tokenization_time_ns,
        "x-queue-time": metadata.queue_time_ns,
        "x-inference-time": metadata.inference_time_ns,
    }
    return (
        ("x-compute-characters", str(metadata.compute_chars)),
        ("x-compute-tokens", str(metadata.compute_tokens)),
        *((name, str(nanoseconds // 1_000_000)) for name, nanoseconds in times.items()),
    )
