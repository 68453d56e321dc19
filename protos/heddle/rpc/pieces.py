"""Large outcomes in pieces: a server cuts them (`outgoing`) and a client joins them (`pod`). See OutcomePiece in
item.proto.

With pieces, neither end serializes or parses a large outcome at once, and small outcomes do not wait for it.

Protobuf merges concatenated encodings of messages: lists are appended, and inner messages are merged. So a message with
a long list is encoded in parts, each with some of the list's elements.
"""

from collections.abc import Callable, Container, Iterable, Iterator
from functools import lru_cache
from typing import Any, Generic

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from heddle.rpc.message_bytes import length_delimited
from heddle.rpc.stream import Outcome
from heddle.v1 import item_pb2

# The receiver needs about 0.2 ms for a piece.
PIECE_BYTES = 256 << 10

# The bytes of a message, not concatenated, so that large fields are not copied.
Chunks = list[bytes]


def cut(message: Any, bytes_max: int = PIECE_BYTES) -> Iterator[tuple[bytes, bool]]:
    """Yields the pieces of the encoded message, of about `bytes_max` or fewer bytes, and whether each ends a part."""
    waiting: list[bytes | memoryview] = []
    size = 0
    for part in encode_parts(message):
        is_cut = False
        for chunk in part:
            for start in range(0, len(chunk), bytes_max):
                if size >= bytes_max:
                    yield b"".join(waiting), False
                    waiting, size, is_cut = [], 0, True
                waiting.append(memoryview(chunk)[start : start + bytes_max])
                size += len(waiting[-1])
        if is_cut or size >= bytes_max:
            yield b"".join(waiting), True
            waiting, size = [], 0
    yield b"".join(waiting), True


def encode(message: Any) -> Chunks:
    """Encodes a message. Faster than SerializeToString, which copies long byte fields several times."""
    if not has_bytes(message.DESCRIPTOR):
        return [message.SerializeToString()]
    return [chunk for part in encode_parts(message) for chunk in part]


def encode_parts(message: Any) -> Iterator[Chunks]:
    """Yields messages that make up this one when they are merged: one for each element of its lists of messages, one
    for each byte field, and one with the other fields."""
    others = type(message)()
    for field, value in message.ListFields():
        if is_message_list(field):
            for element in value:
                yield length_delimited(field.number, encode(element))
        elif field.is_repeated:  # a list of scalars, or a map
            getattr(others, field.name).MergeFrom(value)
        elif field.message_type is not None:
            for part in encode_parts(value):
                yield length_delimited(field.number, part)
        elif field.type == FieldDescriptor.TYPE_BYTES:
            yield length_delimited(field.number, [value])
        else:
            setattr(others, field.name, value)
    yield [others.SerializeToString()]


def is_message_list(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and field.is_repeated and not kind.GetOptions().map_entry


@lru_cache
def has_bytes(kind: Descriptor) -> bool:
    """Returns whether messages of this kind have a byte field at any depth. Kinds must not contain themselves."""
    return any(
        field.type == FieldDescriptor.TYPE_BYTES or (field.message_type is not None and has_bytes(field.message_type))
        for field in kind.fields
    )


class Joiner(Generic[Outcome]):
    """Joins the pieces of the outcomes of one stream."""

    def __init__(self, outcome_type: Callable[[], Outcome]) -> None:
        self._outcome_type = outcome_type
        self._unfinished: dict[int, tuple[Outcome, bytearray]] = {}

    def join(self, pieces: Iterable[item_pb2.OutcomePiece], wanted: Container[int]) -> list[Outcome]:
        """Returns the outcomes that these pieces complete, except those whose ids are not `wanted`. Raises
        DecodeError for bytes that are not an outcome."""
        joined = [self._add(piece) for piece in pieces if piece.id in wanted]
        return [outcome for outcome in joined if outcome is not None]

    def drop(self, item_id: int) -> None:
        """Must be called when the rest of this outcome is not wanted."""
        self._unfinished.pop(item_id, None)

    def clear(self) -> None:
        """Must be called when the stream has ended."""
        self._unfinished.clear()

    def _add(self, piece: item_pb2.OutcomePiece) -> Outcome | None:
        entry = self._unfinished.get(piece.id)
        if entry is None:
            entry = self._unfinished[piece.id] = self._outcome_type(), bytearray()
        outcome, data = entry
        data += piece.data
        if piece.ends_part or piece.is_last:
            outcome.MergeFromString(data)
            data.clear()
        if not piece.is_last:
            return None
        del self._unfinished[piece.id]
        outcome.id = piece.id
        return outcome
