"""The deadline of a request: what its headers say, never later than what the gateway gives."""

import time

import pytest

from http_gateway.web.message import read_deadline


def left_s(**headers: str) -> float:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_deadline(named, 60.0) - time.monotonic()


def test_without_headers_the_deadline_is_the_gateways() -> None:
    assert left_s() == pytest.approx(60, abs=1)


def test_callers_can_shorten_the_deadline_but_not_lengthen_it() -> None:
    assert left_s(request_timeout_ms="1500") == pytest.approx(1.5, abs=0.5)
    assert left_s(request_timeout_ms="3600000") == pytest.approx(60, abs=1)
    in_two_seconds = str(int((time.time() + 2) * 1000))
    assert left_s(request_deadline_ms=in_two_seconds) == pytest.approx(2, abs=0.5)
    assert left_s(request_deadline_ms=in_two_seconds, request_timeout_ms="1000") == pytest.approx(1, abs=0.5)


def test_a_deadline_in_the_past_leaves_nothing() -> None:
    assert left_s(request_deadline_ms="1000") <= 0


@pytest.mark.parametrize("nonsense", ["", "soon", "-5", "1e3", "١٢", "1.2.3", "NaN"])
def test_a_value_that_is_not_a_number_counts_as_absent(nonsense: str) -> None:
    assert left_s(request_timeout_ms=nonsense, request_deadline_ms=nonsense) == pytest.approx(60, abs=1)
