"""The outcomes that wait to be written to one client's stream: serialized small ones, and large ones cut in pieces.

Each frame takes all waiting small outcomes, and PIECE_BYTES of the large ones, which take turns. So a small outcome
waits for at most one frame, however many large ones there are. A `Session` of `stream_session` fills and empties it.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic

from heddle.rpc.coalescer import Coalescer, CoalescerLimits
from heddle.rpc.errors import HeddleError
from heddle.rpc.message_bytes import too_large
from heddle.rpc.pieces import PIECE_BYTES, cut
from heddle.rpc.stream import LargeOutcome, Outcome
from heddle.v1 import item_pb2


@dataclass(slots=True)
class UnsentBytes:
    """Bytes of outcomes that have not been written, over all streams of a server."""

    total: int = 0


@dataclass(slots=True, eq=False)
class Cutting(Generic[Outcome]):
    """A large outcome that is being sent."""

    large: LargeOutcome[Outcome]
    unsent: int = field(init=False)
    sent: int = 0
    _pieces: Iterator[tuple[bytes, bool]] = field(init=False)
    _next: tuple[bytes, bool] | None = None

    def __post_init__(self) -> None:
        self.unsent = self.large.size
        self._pieces = cut(self.large.outcome)

    def next_piece(self, item_id: int, bytes_max: int) -> item_pb2.OutcomePiece:
        """Raises TOO_LARGE once more than `bytes_max` would have been sent."""
        if not self.sent:
            self._next = next(self._pieces)
        assert self._next is not None
        data, ends_part = self._next
        self._next = next(self._pieces, None)
        self.sent += len(data)
        if self.sent > bytes_max:
            raise too_large("answer", f"more than {bytes_max}", bytes_max)
        return item_pb2.OutcomePiece(id=item_id, data=data, ends_part=ends_part, is_last=self._next is None)


class Outgoing(Generic[Outcome]):
    def __init__(self, limits: CoalescerLimits, unsent: UnsentBytes, outcome_bytes_max: int) -> None:
        self._small: Coalescer[bytes] = Coalescer(limits)
        self._large: OrderedDict[int, Cutting[Outcome]] = OrderedDict()  # by item, in the order of their turns
        self._unsent = unsent
        self._outcome_bytes_max = outcome_bytes_max
        self.cost = 0  # bytes that have not been written
        self.writing_cost = 0  # bytes that `take` returned and that are being written

    def __len__(self) -> int:
        """The number of outcomes that have not been taken."""
        return len(self._small) + len(self._large)

    def __contains__(self, item_id: int) -> bool:
        """Whether a large outcome of this item is being sent."""
        return item_id in self._large

    @property
    def small_cost(self) -> int:
        """The bytes of small outcomes that have not been taken."""
        return self._small.cost

    @property
    def has_large(self) -> bool:
        return bool(self._large)

    def put(self, outcome: bytes) -> None:
        self._small.put(outcome, len(outcome))
        self._count(len(outcome))

    def put_large(self, item_id: int, large: LargeOutcome[Outcome]) -> None:
        self._large[item_id] = Cutting(large)
        self._count(large.size)
        self._small.nudge()

    def drop(self, item_id: int) -> None:
        """Drops a large outcome that was cancelled, has failed, or has been sent."""
        cutting = self._large.pop(item_id, None)
        if cutting is not None:
            self._count(-cutting.unsent)
            cutting.large.release()

    def nudge(self) -> None:
        """Makes the next `take` return even if nothing is waiting."""
        self._small.nudge()

    async def take(self) -> list[bytes]:
        """Waits, and returns the small outcomes for the next frame. `take_pieces` returns its pieces of large ones."""
        outcomes = await self._small.take()
        self.writing_cost = sum(map(len, outcomes))
        return outcomes

    def take_pieces(self, on_error: Callable[[int, HeddleError], object]) -> list[item_pb2.OutcomePiece]:
        """`on_error` is called with the item of an outcome that is too large or cannot be serialized."""
        pieces: list[item_pb2.OutcomePiece] = []
        room = PIECE_BYTES
        while room > 0 and self._large:
            item_id, cutting = next(iter(self._large.items()))
            try:
                piece = cutting.next_piece(item_id, self._outcome_bytes_max)
            except Exception as error:  # noqa: BLE001 - one outcome's bug must not end the stream of the others
                self.drop(item_id)
                on_error(item_id, HeddleError.from_exception(error))
                continue
            room -= len(piece.data)
            pieces.append(piece)
            self._count_piece(cutting, len(piece.data))
            self._large.move_to_end(item_id)
            if piece.is_last:
                self.drop(item_id)
        return pieces

    def written(self) -> None:
        """Must be called when the frame has been written."""
        self._count(-self.writing_cost)
        self.writing_cost = 0
        if self._large:
            self._small.nudge()

    def close(self) -> None:
        """Drops all outcomes. Must be called when the stream ends."""
        for item_id in list(self._large):
            self.drop(item_id)
        self._count(-self.cost)

    def _count_piece(self, cutting: Cutting[Outcome], size: int) -> None:
        left = max(0, cutting.unsent - size)
        self._count(left - cutting.unsent)
        cutting.unsent = left

    def _count(self, size: int) -> None:
        self.cost += size
        self._unsent.total += size
