"""Unary calls: their gRPC deadline and metadata carry what an item carries in its context on a stream."""

from __future__ import annotations  # or each call would evaluate those of the function inside submit_and_wait

import asyncio
import functools
from typing import Any

import grpc

from heddle.rpc.deadlines import NEVER, deadline_after
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.fairness import is_priority, peer_flow
from heddle.rpc.keys import check_key
from heddle.rpc.stream import Item, LargeOutcome, Outcome, ServerSubmit
from heddle.v1 import item_pb2

PRIORITY_KEY = "heddle-priority"
FLOW_KEY = "heddle-flow"
REQUEST_ID_KEY = "x-request-id"
TRACEPARENT_KEY = "traceparent"
TRACESTATE_KEY = "tracestate"


def read_context(call: grpc.aio.ServicerContext[Any, Any]) -> item_pb2.ItemContext:
    """Reads the ItemContext from a call's metadata and peer. Raises INVALID_INPUT for an invalid priority, and
    UNAUTHENTICATED."""
    metadata = {key: value for key, value in call.invocation_metadata() or () if isinstance(value, str)}
    priority = metadata.get(PRIORITY_KEY, "0")
    if not is_priority(priority):
        raise HeddleError(ErrorKind.INVALID_INPUT, f"{PRIORITY_KEY} must be a number from 0 on", field=PRIORITY_KEY)
    return item_pb2.ItemContext(
        priority=max(int(priority), check_key.get()()),
        flow=metadata.get(FLOW_KEY) or peer_flow(call.peer()),
        request_id=metadata.get(REQUEST_ID_KEY, ""),
        traceparent=metadata.get(TRACEPARENT_KEY, ""),
        tracestate=metadata.get(TRACESTATE_KEY, ""),
    )


def to_metadata(context: item_pb2.ItemContext) -> tuple[tuple[str, str], ...]:
    """The metadata that `read_context` reads at the server."""
    metadata = (
        (PRIORITY_KEY, str(context.priority or "")),
        (FLOW_KEY, context.flow),
        (REQUEST_ID_KEY, context.request_id),
        (TRACEPARENT_KEY, context.traceparent),
        (TRACESTATE_KEY, context.tracestate),
    )
    return tuple((key, value) for key, value in metadata if value)


def call_deadline(call: grpc.aio.ServicerContext[Any, Any]) -> float:
    left = call.time_remaining()
    return NEVER if left is None else deadline_after(left)


class CallBytes:
    """Limits the bytes of unary calls: of their requests, and of answers until they have been sent."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.total = 0

    def take(self, count: int, call: grpc.aio.ServicerContext[Any, Any], *, own: int = 0) -> None:
        """Counts bytes until the call is over. `own` are those that it has taken before. Raises OVERLOADED if all are
        too many, unless the call is alone."""
        if self.total > own and self.total + count > self.bytes_max:
            message = "the calls in progress fill the memory set aside for them"
            raise HeddleError(ErrorKind.OVERLOADED, message, retry_after_ms=1000)
        self.total += count
        call.add_done_callback(functools.partial(self._give_back, count))  # type: ignore[arg-type]  # any callable

    def _give_back(self, count: int, _: Any) -> None:
        self.total -= count


async def submit_and_wait(submit: ServerSubmit[Item, Outcome], item: Item, deadline: float) -> Outcome:
    """Submits an item and returns its outcome. Raises HeddleError. Cancels the item when the task is cancelled."""
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def reply(outcome: Outcome | LargeOutcome[Outcome] | HeddleError) -> None:
        if isinstance(outcome, LargeOutcome):
            outcome.release()
            outcome = outcome.outcome
        if future.done():
            return
        if isinstance(outcome, HeddleError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    cancel = submit(item, deadline, reply)
    try:
        return await future
    except (asyncio.CancelledError, GeneratorExit):
        cancel()
        raise
