"""One timer for many deadlines."""

import asyncio
import math
import time

from heddle.rpc.deadlines import Alarm


async def test_an_alarm_rings_at_the_earliest_time_and_then_when_it_was_told() -> None:
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
    assert 0.1 <= rung[0] < 0.15
    assert 0.2 <= rung[1] < 0.25


async def test_an_alarm_that_was_stopped_does_not_ring() -> None:
    alarm = Alarm(lambda: 1 / 0)
    alarm.set(time.monotonic() + 0.01)
    alarm.stop()
    await asyncio.sleep(0.05)
