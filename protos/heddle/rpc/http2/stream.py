"""One gRPC stream, alone on its HTTP/2 connection: frames, flow control and messages, the same at both ends.

`client` and `server` each add how a stream begins and what its headers mean. All runs on the event loop that owns the
socket, so that a message costs one system call and no thread.

A peer may send WINDOW_BYTES beyond what has been read here; a writer waits while the peer or the socket takes no more.
"""

import asyncio
import struct
from collections import deque
from typing import cast

import hpack

from heddle.rpc.errors import ErrorKind
from heddle.rpc.http2 import frames
from heddle.rpc.http2.dead_peers import give_up_the_dead
from heddle.rpc.http2.errors import ProtocolError, StreamBroken
from heddle.rpc.http2.messages import PREFIX_BYTES, Messages, prefix_of

WINDOW_BYTES = 4 << 20
FRAME_BYTES_MAX = 256 << 10
# A header block over this is refused; ours have a few hundred bytes.
HEADERS_BYTES_MAX = 64 << 10
# What a reader is given before the event loop has its turn.
TURN_BYTES = 64 << 10
# How long a peer may take to read what was written last, before the connection is closed on it.
LINGER_S_MAX = 10.0
# A peer that asks for answers (pings, settings) without reading them is left at this.
UNSENT_BYTES_MAX = 16 << 20

OUR_SETTINGS = {frames.INITIAL_WINDOW_SIZE: WINDOW_BYTES, frames.MAX_FRAME_SIZE: FRAME_BYTES_MAX}
OUR_ROOM = frames.window_update(0, WINDOW_BYTES - frames.WINDOW_BYTES_DEFAULT)  # which no setting says

Headers = list[tuple[str, str]]


class Http2Stream(asyncio.Protocol):
    def __init__(self) -> None:
        self.stream = 0  # its number on the connection; 0 while there is none
        self._transport: asyncio.Transport
        self._unread = b""  # the begin of a frame
        self._headers = hpack.Decoder()
        self._header_block = b""  # of a HEADERS frame that CONTINUATION frames follow
        self._header_flags: int | None = None
        self._header_stream = 0
        self._pieces = Messages()
        self._messages: deque[bytes] = deque()  # that nobody has read yet
        self._messages_bytes = 0
        self._turn_bytes = 0  # read since the reader last waited
        self._owed = 0  # bytes received for which the peer was given no new room
        self._reader: asyncio.Future[None] | None = None
        self._room = frames.WINDOW_BYTES_DEFAULT  # that the peer leaves us on the stream
        self._connection_room = frames.WINDOW_BYTES_DEFAULT
        self._initial_room = frames.WINDOW_BYTES_DEFAULT
        self._frame_bytes_max = frames.FRAME_BYTES_MAX_DEFAULT
        self._writer: asyncio.Future[None] | None = None
        self._paused = False
        self._peer_finished = False
        self._end: StreamBroken | None = None

    # What its ends add.

    def on_headers(self, stream: int, headers: Headers, *, ends_stream: bool) -> None:
        """Of the request, or of the answer and of its end."""

    def on_end(self) -> None:
        """Called once: nothing can be read or written any more."""

    def leave(self) -> None:
        """Closes the connection."""
        self._transport.close()

    # For those who read and write messages.

    async def read(self) -> bytes | None:
        """The next message; None when the peer has sent its last. Raises StreamBroken."""
        while not self._messages:
            if self._peer_finished:
                return None
            if self._end is not None:
                raise self._end
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
            self._turn_bytes = 0
        if self._turn_bytes > TURN_BYTES:
            await self._turn()
        message = self._messages.popleft()
        self._messages_bytes -= PREFIX_BYTES + len(message)
        self._turn_bytes += PREFIX_BYTES + len(message)
        self._give_room()
        return message

    async def _turn(self) -> None:
        """Of the others: a reader of what is there already would wait for nothing."""
        self._turn_bytes = 0
        await asyncio.sleep(0)

    async def write(self, message: bytes) -> None:
        """Returns when the socket has taken it. One writer at a time. Raises StreamBroken."""
        prefix, size = prefix_of(message), PREFIX_BYTES + len(message)
        if size <= self._room_now() and not self._paused and self._end is None:
            self._take_room(size)
            self._transport.write(frames.frame_header(size, frames.DATA, 0, self.stream) + prefix + message)
        else:
            await self._write_in_pieces(memoryview(prefix + message))

    def close(self, error: int = frames.CANCEL) -> None:
        """Ends the stream and its connection, at once."""
        if self._end is None:
            self._transport.write(frames.reset(self.stream, error))
            self._finish(StreamBroken(ErrorKind.UNAVAILABLE, "the stream was closed"))

    async def _write_in_pieces(self, data: memoryview) -> None:
        while data:
            if self._end is not None:
                raise self._end
            size = min(len(data), self._room_now())
            if not size or self._paused:
                self._writer = asyncio.get_running_loop().create_future()
                await self._writer
                continue
            self._take_room(size)
            self._transport.write(frames.frame_header(size, frames.DATA, 0, self.stream) + data[:size])
            data = data[size:]

    def _room_now(self) -> int:
        return max(0, min(self._room, self._connection_room, self._frame_bytes_max))

    def _take_room(self, size: int) -> None:
        self._room -= size
        self._connection_room -= size

    def _give_room(self) -> None:
        """As soon as half of the window is used up, but not to a peer whose messages nobody reads."""
        if self._owed >= WINDOW_BYTES // 2 and self._messages_bytes < WINDOW_BYTES and self._end is None:
            self._transport.write(frames.window_update(0, self._owed) + frames.window_update(self.stream, self._owed))
            self._owed = 0

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        give_up_the_dead(transport.get_extra_info("socket"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(StreamBroken(ErrorKind.UNAVAILABLE, f"the connection was lost{f': {exc}' if exc else ''}"))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake_writer()

    def data_received(self, data: bytes) -> None:
        if self._end is not None:
            return
        if self._unread:
            data = self._unread + data
        try:
            self._unread = data[self._receive(data) :]
        except (ProtocolError, ValueError, struct.error, hpack.HPACKError) as error:
            code = error.code if isinstance(error, ProtocolError) else frames.PROTOCOL_ERROR
            self._transport.write(frames.goaway(self.stream, code))
            self._finish(StreamBroken(ErrorKind.UNAVAILABLE, f"the peer broke HTTP/2: {error}"))

    def _receive(self, data: bytes) -> int:
        """How many bytes were whole frames."""
        position, available = 0, len(data)
        while available - position >= frames.FRAME_HEADER_BYTES and self._end is None:
            size, kind, flags, stream = frames.header_of(data, position)
            if size > FRAME_BYTES_MAX:
                begin = data[position : position + frames.FRAME_HEADER_BYTES]
                raise ProtocolError(f"a frame over the size that was set, it begins {begin!r}", frames.FRAME_SIZE_ERROR)
            payload = position + frames.FRAME_HEADER_BYTES
            if payload + size > available:
                break
            position = payload + size
            self._on_frame(kind, flags, stream, data[payload:position])
        return position

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._header_flags is not None and (kind, stream) != (frames.CONTINUATION, self._header_stream):
            raise ProtocolError("a header block was interrupted")
        if len(payload) != frames.PAYLOAD_BYTES.get(kind, len(payload)):
            raise ProtocolError("a frame of a wrong size", frames.FRAME_SIZE_ERROR)
        if kind == frames.DATA:
            self._on_data(flags, stream, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._on_window_update(stream, int.from_bytes(payload, "big") & frames.WINDOW_BYTES_MAX)
        elif kind in (frames.HEADERS, frames.CONTINUATION):
            self._on_header_block(kind, flags, stream, payload)
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            self._on_settings(payload)
        elif kind == frames.PING and not flags & frames.ACK:
            self._answer(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.RST_STREAM and stream == self.stream:
            code = int.from_bytes(payload, "big")
            self._finish(StreamBroken(ErrorKind.UNAVAILABLE, f"the peer reset the stream with HTTP/2 error {code}"))
        elif kind == frames.GOAWAY and int.from_bytes(payload[:4], "big") < self.stream:
            self._finish(StreamBroken(ErrorKind.UNAVAILABLE, "the peer is going away"))
        elif kind == frames.PUSH_PROMISE:
            raise ProtocolError("a push that nobody asked for")

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        if stream != self.stream or not stream or self._peer_finished:
            raise ProtocolError("data for a stream that is not open")
        self._owed += len(payload)
        if self._owed > WINDOW_BYTES:
            raise ProtocolError("more data than it was given room for", frames.FLOW_CONTROL_ERROR)
        if flags & frames.PADDED:
            payload = frames.unpadded(payload, flags & frames.PADDED)
        for message in self._pieces.cut(payload):
            self._messages.append(message)
            self._messages_bytes += PREFIX_BYTES + len(message)
        self._wake_reader()
        if flags & frames.END_STREAM:
            self.on_peer_finished()
        self._give_room()

    def on_peer_finished(self) -> None:
        if self._pieces.begun:
            raise ProtocolError("the end within a message")
        self._peer_finished = True
        self._wake_reader()

    def _on_window_update(self, stream: int, size: int) -> None:
        if stream == 0:
            self._connection_room += size
        elif stream == self.stream:
            self._room += size
        self._on_more_room()

    def _on_settings(self, payload: bytes) -> None:
        for name, value in frames.settings_of(payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                self._room += value - self._initial_room
                self._initial_room = value
            elif name == frames.MAX_FRAME_SIZE:
                if not frames.FRAME_BYTES_MAX_DEFAULT <= value <= frames.FRAME_BYTES_MAX_LIMIT:
                    raise ProtocolError(f"frames of {value} bytes")
                self._frame_bytes_max = min(value, FRAME_BYTES_MAX)
        self._answer(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
        self._on_more_room()

    def _on_more_room(self) -> None:
        if max(self._room, self._connection_room, self._initial_room) > frames.WINDOW_BYTES_MAX:
            raise ProtocolError("a window over 2^31 - 1", frames.FLOW_CONTROL_ERROR)
        self._wake_writer()

    def _on_header_block(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == frames.HEADERS:
            self._header_block = frames.unpadded(payload, flags)
            self._header_flags, self._header_stream = flags, stream
        elif self._header_flags is None:
            raise ProtocolError("a continuation of nothing")
        else:
            self._header_block += payload
            flags |= self._header_flags
        if len(self._header_block) > HEADERS_BYTES_MAX:
            raise ProtocolError("a header block over the limit", frames.ENHANCE_YOUR_CALM)
        if flags & frames.END_HEADERS:
            fields = self._headers.decode(self._header_block, raw=True)
            headers = [(text_of(name), text_of(value)) for name, value in fields]
            ends_stream = bool((self._header_flags or 0) & frames.END_STREAM)
            self._header_block, self._header_flags = b"", None
            self.on_headers(stream, headers, ends_stream=ends_stream)

    def _answer(self, frame: bytes) -> None:
        if self._transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            raise ProtocolError("it reads none of the answers that it asks for", frames.ENHANCE_YOUR_CALM)
        self._transport.write(frame)

    def _finish(self, error: StreamBroken) -> None:
        if self._end is None:
            self._end = error
            self.leave()
            self._wake_reader()
            self._wake_writer()
            self.on_end()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writer(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)


def text_of(data: str | bytes) -> str:
    return data if isinstance(data, str) else data.decode(errors="replace")
