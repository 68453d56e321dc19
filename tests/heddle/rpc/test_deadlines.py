"""The time left, as it is written on the wire, and one timer for many deadlines."""

import asyncio
import math
import time

import pytest

from heddle.rpc.deadlines import NEVER, WIRE_MS_MAX, Alarm, remaining_ms
from heddle.rpc.errors import ErrorKind, HeddleError


@pytest.mark.parametrize(
    ("left_s", "written"), [(NEVER, 0), (0.0001, 1), (0.25, 250), (59.9996, 59_999), (1e7, WIRE_MS_MAX)]
)
def test_time_left_is_written_as_milliseconds_and_none_only_for_no_deadline(left_s: float, written: int) -> None:
    assert remaining_ms(left_s, 0.0) == written


def test_no_time_left_is_an_error() -> None:
    with pytest.raises(HeddleError) as raised:
        remaining_ms(5.0, 5.0)
    assert raised.value.kind is ErrorKind.DEADLINE_EXCEEDED


async def test_an_alarm_rings_at_the_earliest_time_and_then_at_the_returned_one() -> None:
    rung: list[float] = []
    began = time.monotonic()

    def ring() -> float:
        rung.append(time.monotonic() - began)
        return began + 0.2 if len(rung) == 1 else math.inf

    alarm = Alarm(ring)
    for after_s in (9.0, 0.1, 5.0, math.inf):
        alarm.set(began + after_s)
    await asyncio.sleep(0.35)
    assert len(rung) == 2
    assert 0.1 <= rung[0] < 1
    assert 0.2 <= rung[1] < 1


async def test_an_alarm_that_was_stopped_does_not_ring() -> None:
    alarm = Alarm(lambda: 1 / 0)
    alarm.set(time.monotonic() + 0.01)
    alarm.stop()
    await asyncio.sleep(0.05)
