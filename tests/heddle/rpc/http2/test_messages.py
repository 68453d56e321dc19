"""Messages are the same however the bytes that hold them come."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.rpc.channels import MESSAGE_BYTES_MAX
from heddle.rpc.http2.messages import Messages, prefix_of


def wired(messages: list[bytes]) -> bytes:
    return b"".join(prefix_of(message) + message for message in messages)


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 300)))
def test_messages_are_the_same_wherever_they_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    data, pieces = wired(messages), Messages()
    places = sorted({0, len(data), *(place for place in cuts if place < len(data))})
    found: list[bytes] = []
    for one, two in itertools.pairwise(places):
        found += pieces.cut(data[one:two])
    assert found == messages
    assert not pieces.begun


def test_what_has_come_in_part_is_known() -> None:
    pieces = Messages()
    assert not pieces.begun
    assert pieces.cut(wired([b"one", b"two"])[:-1]) == [b"one"]
    assert pieces.begun
    assert pieces.cut(b"o") == [b"two"]
    assert not pieces.begun


@pytest.mark.parametrize("prefix", [b"\x01\0\0\0\0", b"\xff\0\0\0\x01"])
def test_a_compressed_message_is_refused(prefix: bytes) -> None:
    with pytest.raises(ValueError, match="compressed"):
        Messages().cut(prefix)


def test_a_message_over_the_limit_is_refused_by_its_prefix() -> None:
    assert Messages().cut(b"\0" + MESSAGE_BYTES_MAX.to_bytes(4, "big")) == []
    with pytest.raises(ValueError, match="larger than max"):
        Messages().cut(b"\0" + (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"))


def test_many_small_messages_in_one_piece_take_time_in_proportion() -> None:
    """As a peer may send them; four million bytes that were copied for each message would take minutes."""
    began = time.perf_counter()
    assert len(Messages().cut(wired([b""] * 800_000))) == 800_000
    assert time.perf_counter() - began < 5
