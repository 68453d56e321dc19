"""Types that both ends of a coalescing stream share: its messages, and the `Submit` function behind them.

EngineService.Infer and InferenceService.Infer are one protocol with different items. A client's frame has `items` (each
with an id that the client chose, and a context) and `cancel_ids`. A server's frame has `outcomes` (each with the id of
its item), `pieces` of large outcomes, the pod's `load`, and `draining`. A server writes a frame at least every
HEARTBEAT_S, and while items are unanswered every BUSY_HEARTBEAT_S.

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
from heddle.rpc.message_bytes import ITEM_BYTES_MAX, Serializable
from heddle.v1 import error_pb2, item_pb2

HEARTBEAT_S = 2.0
# The same while items are unanswered.
BUSY_HEARTBEAT_S = 0.15
# A stream that has been silent for this long is closed.
SILENCE_S_MAX = 3 * HEARTBEAT_S

# Smaller outcomes are serialized at once, and leave in one frame.
LARGE_BYTES_MIN = 128 << 10

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
    def MergeFromString(self, serialized: Any, /) -> int: ...


Item = TypeVar("Item", bound=ItemMessage)
Outcome = TypeVar("Outcome", bound=OutcomeMessage)


class RequestFrame(Serializable, Protocol[Item]):
    takes_pieces: bool

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
    @property
    def pieces(self) -> MutableSequence[item_pb2.OutcomePiece]: ...


def nothing_to_release() -> None:
    """The `release` of an outcome that nobody counts."""


@dataclass(frozen=True, slots=True)
class LargeOutcome(Generic[Outcome]):
    """An outcome that a stream should send in pieces, because it has more than LARGE_BYTES_MIN."""

    outcome: Outcome
    size: int  # of its encoding, in bytes, about
    release: Callable[[], None] = nothing_to_release  # called once it has been sent, or never will be


# Called once, on the event loop, with the outcome (its id is ignored) or an error. A cancelled item may be answered
# too.
Reply = Callable[[Outcome | HeddleError], None]
# The same at a server, which may get large outcomes.
ServerReply = Callable[[Outcome | LargeOutcome[Outcome] | HeddleError], None]
# Has no effect once the item is answered.
Cancel = Callable[[], None]
# (item, deadline in seconds of time.monotonic(), reply) -> cancel. Never raises: a refusal is a reply too.
Submit = Callable[[Item, float, Reply[Outcome]], Cancel]
ServerSubmit = Callable[[Item, float, ServerReply[Outcome]], Cancel]


@dataclass(frozen=True, slots=True)
class StreamProtocol(Generic[Item, Outcome]):
    """What a client must know of one kind of stream. `heddle.client` and the tokenizer's `engines` define one each."""

    service: str  # full name, such as heddle.v1.EngineService
    frame_type: Callable[[], RequestFrame[Item]]
    outcome_type: Callable[[], Outcome]
    open_stream: Callable[[grpc.aio.Channel, Metadata], Any]  # returns a grpc.aio.StreamStreamCall
    # Checks the peer and returns the stream's first frame. Raises HeddleError to refuse the peer.
    handshake: Callable[[grpc.aio.Channel, Metadata], Awaitable[RequestFrame[Item]]]
    # An item's cost to the pod, in the unit of the pod's Load; None: its bytes.
    cost_of: Callable[[Item], int] | None
    # A larger item is refused, because it would break the stream for all others.
    item_bytes_max: int = ITEM_BYTES_MAX
    # The pods send items on to pods of their own, as tokenizers do. So this pool does not hedge what is late, and does
    # not move what is refused: theirs does, and with both each item could become four.
    relays: bool = False


def nothing_to_cancel() -> None:
    """The Cancel of an item that is answered already."""


def cancel_all(cancels: Sequence[Cancel]) -> None:
    for cancel in cancels:
        cancel()
