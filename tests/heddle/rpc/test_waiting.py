"""Waiting on the event loop: nobody misses a change, and long work lets other tasks run."""

import asyncio
import time

from heddle.rpc.waiting import Changes, TimeSlice, poll_until


async def test_every_waiter_returns_when_its_condition_is_true() -> None:
    changes, count = Changes(), 0
    first = asyncio.create_task(changes.wait_for(lambda: count >= 1))
    second = asyncio.create_task(changes.wait_for(lambda: count >= 2))
    await asyncio.sleep(0)
    changes.notify()  # nothing has changed yet
    await asyncio.sleep(0)
    assert not first.done()
    for waiter in (first, second):
        count += 1
        changes.notify()
        await asyncio.wait_for(waiter, 1)
    await changes.wait_for(lambda: True)


async def test_polling_needs_no_notice() -> None:
    began = time.monotonic()
    await asyncio.wait_for(poll_until(lambda: time.monotonic() - began > 0.05), 1)


async def test_others_run_once_a_slice_is_used_up() -> None:
    ran: list[bool] = []
    asyncio.get_running_loop().call_soon(ran.append, True)
    await TimeSlice(seconds_max=60).give_way()
    assert not ran
    await TimeSlice(seconds_max=0).give_way()
    assert ran
