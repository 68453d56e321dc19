"""gRPC's messages in a stream of bytes, each behind a prefix with its length. Used by `stream`.

See "Length-Prefixed-Message" in https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from heddle.rpc.channels import MESSAGE_BYTES_MAX

PREFIX_BYTES = 5
UNCOMPRESSED = b"\x00"


def prefix_of(message: bytes) -> bytes:
    return UNCOMPRESSED + len(message).to_bytes(PREFIX_BYTES - 1, "big")


class Messages:
    """Cuts what comes in, a piece of a message or several of them at a time."""

    def __init__(self) -> None:
        self._begun = bytearray()

    def cut(self, data: bytes) -> list[bytes]:
        """The messages that end within `data`. Raises ValueError for one that cannot be taken."""
        if not self._begun and len(data) >= PREFIX_BYTES and end_of(data) == len(data):
            return [data[PREFIX_BYTES:]]
        self._begun += data
        messages = []
        while len(self._begun) >= PREFIX_BYTES and (end := end_of(self._begun)) <= len(self._begun):
            messages.append(bytes(memoryview(self._begun)[PREFIX_BYTES:end]))
            del self._begun[:end]
        return messages

    @property
    def begun(self) -> bool:
        """Whether a message has come in part."""
        return bool(self._begun)


def end_of(data: bytes | bytearray) -> int:
    """Of the message whose prefix `data` begins with. Raises ValueError."""
    if data[0]:
        raise ValueError("a compressed message, which was not offered")
    size = int.from_bytes(data[1:PREFIX_BYTES], "big")
    if size > MESSAGE_BYTES_MAX:
        raise ValueError(f"a message larger than max ({size} vs. {MESSAGE_BYTES_MAX})")
    return PREFIX_BYTES + size
