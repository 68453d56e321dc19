"""What differs between the streams of engine pods and of tokenizer pods, to their client. `heddle.client` and the
tokenizer's `engines` make one each; `pod` speaks it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic

import grpc

from heddle.rpc.message_bytes import ENTRY_BYTES_MAX
from heddle.rpc.stream import Item, Outcome, RequestFrame, ResponseFrame


@dataclass(frozen=True, slots=True)
class Dialect(Generic[Item, Outcome]):
    """How to speak to one kind of pod."""

    method: str  # the stream's: /package.Service/Method
    frame_type: Callable[[], RequestFrame[Item]]
    parse: Callable[[bytes], ResponseFrame[Outcome]]
    # Checks the peer before the first item; returns the stream's first frame. Raises HeddleError to refuse it.
    handshake: Callable[[grpc.aio.Channel], Awaitable[RequestFrame[Item]]]
    # What an item costs the pod, in the unit of its Load; None: its bytes.
    cost_of: Callable[[Item], int] | None
    # A larger item is refused: sent, it would break the stream of all others.
    item_bytes_max: int = ENTRY_BYTES_MAX
