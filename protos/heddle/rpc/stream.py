"""What both ends of a coalescing stream share: the shape of its messages and of a hop.

EngineService.Infer and InferenceService.Infer are one protocol with different items. A client's frame has `items` (each
with an id that the client chose, and a context) and `cancel_ids`; a server's frame has `outcomes` (each with the id of
its item), the pod's `load`, and `draining`. A server writes at least one frame every HEARTBEAT_S.

A hop is a function: give it an item, a deadline and whom to tell, get a way to cancel. A pod's queue is one, and so is
a pool of pods, so that hops compose: a tokenizer pod is a hop that submits to a pool of engine pods.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import grpc

from heddle.rpc.credentials import Metadata
from heddle.rpc.errors import HeddleError
from heddle.rpc.message_bytes import ENTRY_BYTES_MAX, Serializable
from heddle.v1 import error_pb2, item_pb2

HEARTBEAT_S = 2.0
# A stream on which nothing came for so long is given up.
SILENCE_S_MAX = 3 * HEARTBEAT_S

# What grpc.aio raises from a write or read on a stream whose other end is gone.
STREAM_BROKEN = (grpc.aio.AioRpcError, grpc.aio.InternalError, grpc.aio.UsageError, asyncio.InvalidStateError)


class ItemMessage(Serializable, Protocol):
    id: int

    @property
    def context(self) -> item_pb2.ItemContext: ...


class OutcomeMessage(Serializable, Protocol):
    id: int

    @property
    def error(self) -> error_pb2.Error: ...
    def HasField(self, field_name: Any, /) -> bool: ...


Item = TypeVar("Item", bound=ItemMessage)
Outcome = TypeVar("Outcome", bound=OutcomeMessage)


class RequestFrame(Serializable, Protocol[Item]):
    @property
    def items(self) -> MutableSequence[Item]: ...
    @property
    def cancel_ids(self) -> MutableSequence[int]: ...


class ResponseFrame(Serializable, Protocol[Outcome]):
    """Outcomes are its first field, so that a server can write them as the bytes they are already."""

    draining: bool

    @property
    def outcomes(self) -> MutableSequence[Outcome]: ...
    @property
    def load(self) -> item_pb2.Load: ...


# Told once, on the event loop: the outcome (its id does not matter) or why there is none. Not told after a cancel.
Reply = Callable[[Outcome | HeddleError], None]
# Has no effect on what is already answered.
Cancel = Callable[[], None]
# (item, deadline in time.monotonic() seconds, reply) -> cancel. Never raises: refusals are replies too.
Submit = Callable[[Item, float, Reply[Outcome]], Cancel]


@dataclass(frozen=True, slots=True)
class StreamProtocol(Generic[Item, Outcome]):
    """What a client must know of one kind of stream. `heddle.client` and the tokenizer's `engines` define one each."""

    frame_type: Callable[[], RequestFrame[Item]]
    open_stream: Callable[[grpc.aio.Channel, Metadata], Any]  # returns a grpc.aio.StreamStreamCall
    # Checks the peer and returns the stream's first frame. Raises HeddleError to refuse the peer.
    handshake: Callable[[grpc.aio.Channel, Metadata], Awaitable[RequestFrame[Item]]]
    # An item's cost to the pod, in the unit of the pod's Load; None: its bytes.
    cost_of: Callable[[Item], int] | None
    # A larger item is refused, because it would break the stream for all others.
    item_bytes_max: int = ENTRY_BYTES_MAX


def nothing_to_cancel() -> None:
    """The Cancel of an item that was answered at once."""


def cancel_all(cancels: Sequence[Cancel]) -> None:
    for cancel in cancels:
        cancel()
