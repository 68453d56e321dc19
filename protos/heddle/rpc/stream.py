"""Types that both ends of a coalescing stream share: its messages, and the `Submit` function behind them.

EngineService.Infer and InferenceService.Infer are one protocol with different items. A client's frame has `items` (each
with an id that the client chose, and a context) and `cancel_ids`. A server's frame has `outcomes` (each with the id of
its item), the pod's `load`, and `draining`. A server writes a frame at least every HEARTBEAT_S.

`Submit` takes an item, a deadline and a callback for the outcome, and returns a function that cancels. A pod's queue is
one, and so is a pool of pods: a tokenizer pod serves a `Submit` that submits to a pool of engine pods.
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
# A stream that has been silent for this long is closed.
SILENCE_S_MAX = 3 * HEARTBEAT_S

# Raised by grpc.aio for a write or read on a stream whose other end is gone.
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
    """`outcomes` is field 1, so that a server can write outcomes that are serialized already."""

    draining: bool

    @property
    def outcomes(self) -> MutableSequence[Outcome]: ...
    @property
    def load(self) -> item_pb2.Load: ...


# Called once, on the event loop, with the outcome (its id is ignored) or an error. A cancelled item may be answered
# too.
Reply = Callable[[Outcome | HeddleError], None]
# Has no effect once the item is answered.
Cancel = Callable[[], None]
# (item, deadline in seconds of time.monotonic(), reply) -> cancel. Never raises: a refusal is a reply too.
Submit = Callable[[Item, float, Reply[Outcome]], Cancel]


@dataclass(frozen=True, slots=True)
class StreamProtocol(Generic[Item, Outcome]):
    """What a client must know of one kind of stream. `heddle.client` and the tokenizer's `engines` define one each."""

    service: str  # full name, such as heddle.v1.EngineService
    frame_type: Callable[[], RequestFrame[Item]]
    open_stream: Callable[[grpc.aio.Channel, Metadata], Any]  # returns a grpc.aio.StreamStreamCall
    # Checks the peer and returns the stream's first frame. Raises HeddleError to refuse the peer.
    handshake: Callable[[grpc.aio.Channel, Metadata], Awaitable[RequestFrame[Item]]]
    # An item's cost to the pod, in the unit of the pod's Load; None: its bytes.
    cost_of: Callable[[Item], int] | None
    # A larger item is refused, because it would break the stream for all others.
    item_bytes_max: int = ENTRY_BYTES_MAX


def nothing_to_cancel() -> None:
    """The Cancel of an item that is answered already."""


def cancel_all(cancels: Sequence[Cancel]) -> None:
    for cancel in cancels:
        cancel()
