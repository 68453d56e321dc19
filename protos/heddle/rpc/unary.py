"""Unary calls: their gRPC deadline and metadata carry what an item carries in its context on a stream."""

import asyncio
from typing import Any

import grpc

from heddle.rpc.deadlines import NEVER, deadline_after
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.fairness import is_priority, peer_flow
from heddle.rpc.keys import check_key
from heddle.rpc.stream import Item, Outcome, Submit
from heddle.v1 import item_pb2

PRIORITY_KEY = "heddle-priority"
FLOW_KEY = "heddle-flow"
REQUEST_ID_KEY = "x-request-id"
TRACEPARENT_KEY = "traceparent"


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
    )


def to_metadata(context: item_pb2.ItemContext) -> tuple[tuple[str, str], ...]:
    """The metadata that `read_context` reads at the server."""
    metadata = (
        (PRIORITY_KEY, str(context.priority or "")),
        (FLOW_KEY, context.flow),
        (REQUEST_ID_KEY, context.request_id),
        (TRACEPARENT_KEY, context.traceparent),
    )
    return tuple((key, value) for key, value in metadata if value)


def call_deadline(call: grpc.aio.ServicerContext[Any, Any]) -> float:
    left = call.time_remaining()
    return NEVER if left is None else deadline_after(left)


async def submit_and_wait(submit: Submit[Item, Outcome], item: Item, deadline: float) -> Outcome:
    """Submits an item and returns its outcome. Raises HeddleError. Cancels the item when the task is cancelled."""
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def reply(outcome: Outcome | HeddleError) -> None:
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
