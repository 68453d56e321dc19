"""What differs between the streams of engine pods and of tokenizer pods, to their client. `heddle.client` and the
tokenizer's `engines` make one each; `pod` speaks it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic

import grpc

from heddle.rpc.credentials import Metadata
from heddle.rpc.message_bytes import ENTRY_BYTES_MAX
from heddle.rpc.stream import Item, Outcome, RequestFrame


@dataclass(frozen=True, slots=True)
class Dialect(Generic[Item, Outcome]):
    """How to speak to one kind of pod."""

    frame_type: Callable[[], RequestFrame[Item]]
    open_stream: Callable[[grpc.aio.Channel, Metadata], Any]  # returns a grpc.aio.StreamStreamCall
    # Checks the peer before the first item; returns the stream's first frame. Raises HeddleError to refuse it.
    handshake: Callable[[grpc.aio.Channel, Metadata], Awaitable[RequestFrame[Item]]]
    # What an item costs the pod, in the unit of its Load; None: its bytes.
    cost_of: Callable[[Item], int] | None
    # A larger item is refused: sent, it would break the stream of all others.
    item_bytes_max: int = ENTRY_BYTES_MAX
