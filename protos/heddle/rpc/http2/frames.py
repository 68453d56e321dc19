"""HTTP/2 frames (RFC 9113, section 6) as bytes: what the package writes and tells apart."""

import struct
from collections.abc import Iterable

from heddle.rpc.message_bytes import varint

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_BYTES = 9

# Types.
DATA = 0x0
HEADERS = 0x1
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

# Flags. ACK is that of SETTINGS and PING, END_STREAM that of DATA and HEADERS.
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20

# Settings.
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
SETTING_BYTES = 6

# Ours, of the numbers for experiments; whoever does not know it passes over it. The connection is for one stream of
# `http2.client`, so that a server of Heddle serves it itself.
STREAM_ALONE = 0xF0ED

# Errors.
NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
FLOW_CONTROL_ERROR = 0x3
FRAME_SIZE_ERROR = 0x6
CANCEL = 0x8
ENHANCE_YOUR_CALM = 0xB

# Before the peer says otherwise.
WINDOW_BYTES_DEFAULT = 65_535
FRAME_BYTES_MAX_DEFAULT = 16_384
FRAME_BYTES_MAX_LIMIT = 2**24 - 1
WINDOW_BYTES_MAX = 2**31 - 1

# Of the frames that have but one.
PAYLOAD_BYTES = {RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return frame_header(len(payload), kind, flags, stream) + payload


def frame_header(length: int, kind: int, flags: int, stream: int) -> bytes:
    return struct.pack("!HBBBI", length >> 8, length & 0xFF, kind, flags, stream)


def header_of(data: bytes, position: int = 0) -> tuple[int, int, int, int]:
    """Length, type, flags and stream of the frame that begins there."""
    high, low, kind, flags, stream = struct.unpack_from("!HBBBI", data, position)
    return high << 8 | low, kind, flags, stream & WINDOW_BYTES_MAX  # the first bit of a stream means nothing


def settings_frame(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack("!HI", name, value) for name, value in values.items()))


def settings_of(payload: bytes) -> Iterable[tuple[int, int]]:
    """Raises struct.error unless they are whole."""
    return struct.iter_unpack("!HI", payload)


def window_update(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def goaway(last_stream: int, error: int) -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack("!II", last_stream, error))


def reset(stream: int, error: int) -> bytes:
    return frame(RST_STREAM, 0, stream, error.to_bytes(4, "big"))


def unpadded(payload: bytes, flags: int) -> bytes:
    """What a DATA or HEADERS frame holds beside padding and priority. Raises ValueError where those do not fit."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload or payload[0] >= end:
            raise ValueError("more padding than frame")
        start, end = 1, end - payload[0]
    if flags & PRIORITY:
        start += 5
        if start > end:
            raise ValueError("a priority without room for it")
    return payload[start:end]


def plain_headers(headers: Iterable[tuple[str, str]]) -> bytes:
    """A header block of literals that no table remembers (RFC 7541, section 6.2.2): longer, but without state."""
    return b"".join(b"\x00" + plain_string(name) + plain_string(value) for name, value in headers)


def plain_string(text: str) -> bytes:
    """Its length as an integer of a 7-bit prefix (RFC 7541, section 5.1), then the text itself."""
    data = text.encode("latin-1")
    length = len(data)
    if length < 0x7F:
        return bytes((length,)) + data
    return b"\x7f" + varint(length - 0x7F) + data
