"""One RPC of a caller, and the context that all its items share. Made by `calls.py` for each RPC."""

from typing import Any

import grpc

from heddle.rpc.fairness import FlowNames
from heddle.rpc.stream import Submit
from heddle.rpc.unary import call_deadline, read_context, submit_and_wait
from heddle.v1 import inference_pb2

Context = grpc.aio.ServicerContext[Any, Any]
InferenceSubmit = Submit[inference_pb2.InferenceItem, inference_pb2.InferenceOutcome]


class Call:
    """Its items share the RPC's deadline, and one flow, so that a long stream has one share of the engines."""

    def __init__(self, submit: InferenceSubmit, flow_names: FlowNames, context: Context) -> None:
        """Raises INVALID_INPUT for malformed metadata."""
        self._submit = submit
        self._item_context = read_context(context)
        self._item_context.flow = flow_names.complete(self._item_context.flow)
        self._deadline = call_deadline(context)

    async def outcome(self, item: inference_pb2.InferenceItem) -> inference_pb2.InferenceOutcome:
        """Raises HeddleError; cancelling the caller cancels the item."""
        item.context.CopyFrom(self._item_context)
        return await submit_and_wait(self._submit, item, self._deadline)
