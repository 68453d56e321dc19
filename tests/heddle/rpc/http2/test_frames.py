"""Frames as their bytes, read by another implementation."""

import hpack
import pytest
from hyperframe.frame import Frame, GoAwayFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from heddle.rpc.http2 import frames


def read_by_hyperframe(data: bytes) -> Frame:
    frame, size = Frame.parse_frame_header(memoryview(data[: frames.FRAME_HEADER_BYTES]))
    assert len(data) == frames.FRAME_HEADER_BYTES + size
    frame.parse_body(memoryview(data[frames.FRAME_HEADER_BYTES :]))
    return frame


def decoded(block: bytes) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in hpack.Decoder().decode(block, raw=True)]


def test_frames_are_what_another_implementation_reads() -> None:
    settings = read_by_hyperframe(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 7, frames.STREAM_ALONE: 1}))
    assert isinstance(settings, SettingsFrame)
    assert settings.settings == {4: 7, 0xF0ED: 1}
    update = read_by_hyperframe(frames.window_update(3, 70_000))
    assert isinstance(update, WindowUpdateFrame)
    assert (update.stream_id, update.window_increment) == (3, 70_000)
    away = read_by_hyperframe(frames.goaway(1, frames.CANCEL))
    assert isinstance(away, GoAwayFrame)
    assert (away.last_stream_id, away.error_code) == (1, 8)
    reset = read_by_hyperframe(frames.reset(1, frames.CANCEL))
    assert isinstance(reset, RstStreamFrame)
    assert (reset.stream_id, reset.error_code) == (1, 8)


def test_the_length_of_a_frame_may_have_three_bytes() -> None:
    assert frames.frame_header(0x012345, frames.DATA, 0, 1)[:3] == b"\x01\x23\x45"


@given(st.dictionaries(st.text("abc-", min_size=1), st.text(st.characters(max_codepoint=0x7E)), max_size=5))
def test_plain_headers_are_read_back(headers: dict[str, str]) -> None:
    block = frames.plain_headers(headers.items())
    assert decoded(block) == list(headers.items())


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 254, 255, 256, 16_510, 16_511, 20_000])
def test_strings_of_any_length_are_read_back(length: int) -> None:
    assert decoded(frames.plain_headers([("name", "x" * length)])) == [("name", "x" * length)]


def test_padding_and_priority_are_taken_away() -> None:
    both = frames.PADDED | frames.PRIORITY
    assert frames.unpadded(b"\x02" + b"prior" + b"block" + b"\0\0", both) == b"block"
    assert frames.unpadded(b"\x02" + b"block" + b"\0\0", frames.PADDED) == b"block"
    assert frames.unpadded(b"prior" + b"block", frames.PRIORITY) == b"block"
    assert frames.unpadded(b"block", 0) == b"block"
    assert frames.unpadded(b"\x03\0\0\0", frames.PADDED) == b""


@pytest.mark.parametrize(
    ("payload", "flags"),
    [
        (b"", frames.PADDED),
        (b"\x01", frames.PADDED),
        (b"\x03abc"[:3], frames.PADDED),
        (b"1234", frames.PRIORITY),
        (b"\x01" + b"prior", frames.PADDED | frames.PRIORITY),
    ],
)
def test_what_does_not_fit_its_frame_is_refused(payload: bytes, flags: int) -> None:
    with pytest.raises(ValueError, match=r"padding|priority"):
        frames.unpadded(payload, flags)
