"""Serializes messages and checks their size: gRPC would break the stream of a message larger than the peer accepts.

`stream_session` joins frames of serialized outcomes, `pool` checks items, `interceptor` the answers of unary calls.
"""

from collections.abc import Iterable
from typing import Protocol

from google.protobuf.message import EncodeError

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.message_limits import MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX

# Room in a frame beside one large item or outcome, for load, draining, cancelled ids, tags and lengths.
FRAME_EXTRA_BYTES = 64 << 10
ENTRY_BYTES_MAX = MESSAGE_BYTES_MAX - FRAME_EXTRA_BYTES
ITEM_BYTES_MAX = REQUEST_BYTES_MAX - FRAME_EXTRA_BYTES

FIRST_FIELD = b"\x0a"  # the tag of field 1, length-delimited


class Serializable(Protocol):
    def ByteSize(self) -> int: ...
    def SerializeToString(self) -> bytes: ...


def serialize(answer: Serializable, bytes_max: int = MESSAGE_BYTES_MAX) -> bytes:
    """Raises TOO_LARGE for an answer over the limit."""
    try:
        data = answer.SerializeToString()
    except EncodeError:  # protobuf itself stops at 2 GiB
        raise too_large("answer", "more than 2^31", bytes_max) from None
    if len(data) > bytes_max:
        raise too_large("answer", str(len(data)), bytes_max)
    return data


def check_size(request: Serializable, bytes_max: int) -> int:
    """Returns the size in bytes. Raises TOO_LARGE for a request over the limit."""
    try:
        size = request.ByteSize()
    except EncodeError:
        raise too_large("request", "more than 2^31", bytes_max) from None
    if size > bytes_max:
        raise too_large("request", str(size), bytes_max)
    return size


def too_large(what: str, size: str, bytes_max: int) -> HeddleError:
    return HeddleError(ErrorKind.TOO_LARGE, f"the {what} has {size} bytes, the limit of a message is {bytes_max}")


def encode_repeated(entries: Iterable[bytes], others: bytes = b"") -> bytes:
    """Encodes a message whose field 1 is repeated: its serialized entries, followed by its other serialized fields."""
    parts = [part for entry in entries for part in (FIRST_FIELD, varint(len(entry)), entry)]
    return b"".join((*parts, others))


def length_delimited(number: int, chunks: list[bytes]) -> list[bytes]:
    """Encodes a field with bytes or a message, which may be in several chunks."""
    return [varint(number << 3 | 2) + varint(sum(map(len, chunks))), *chunks]


def varint(number: int) -> bytes:
    """Protobuf's encoding of lengths: seven bits per byte, lowest first, the top bit set on all but the last."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
