"""Validation and the recorded flag of the W3C trace context."""

import pytest

from heddle.telemetry.traceparent import (
    TRACEPARENT,
    is_recorded,
    new_unrecorded,
    read_traceparent,
    read_tracestate,
    set_recorded,
    span_id,
    trace_id,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("stated", "read"),
    [
        (VALID, VALID),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"00-{TRACE}-{SPAN}-03", f"00-{TRACE}-{SPAN}-03"),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-holds", VALID),
        (f"cc-{TRACE}-{SPAN}-01", VALID),
        (f"cc-{TRACE}-{SPAN}-01what-the-future-holds", ""),
        (f"{VALID}-more", ""),
        (f"ff-{TRACE}-{SPAN}-01", ""),
        (f"00-{'0' * 32}-{SPAN}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (VALID.upper(), ""),
        (f"00-{TRACE}-{SPAN}-1", ""),
        (f"{VALID}\n", ""),
        ("nonsense", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_only_valid_contexts_are_read(stated: str | None, read: str) -> None:
    assert read_traceparent(stated) == read


@pytest.mark.parametrize(
    ("flags", "recorded"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)]
)
def test_the_lowest_flag_says_whether_a_trace_is_recorded(flags: str, recorded: bool) -> None:
    context = f"00-{TRACE}-{SPAN}-{flags}"
    assert is_recorded(context) == recorded
    assert not is_recorded("")


def test_the_flag_can_be_set_either_way() -> None:
    off = set_recorded(VALID, recorded=False)
    assert (off, set_recorded(off, recorded=True)) == (f"00-{TRACE}-{SPAN}-00", VALID)


def test_new_contexts_are_valid_and_differ() -> None:
    contexts = {new_unrecorded() for _ in range(100)}
    assert len({trace_id(context) for context in contexts}) == len({span_id(context) for context in contexts}) == 100
    assert all(TRACEPARENT.fullmatch(context) and not is_recorded(context) for context in contexts)


def test_a_tracestate_that_is_too_long_is_dropped() -> None:
    assert [read_tracestate(stated) for stated in ("a=1", "a" * 512, "a" * 513, None)] == ["a=1", "a" * 512, "", ""]
