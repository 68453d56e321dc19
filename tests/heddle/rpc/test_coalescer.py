"""Properties of the one queue that every stream writes from."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.rpc.coalescer import Coalescer, CoalescerClosed, CoalescerFull, CoalescerLimits


async def test_idle_consumer_gets_a_single_item_at_once() -> None:
    coalescer: Coalescer[str] = Coalescer()
    taker = asyncio.create_task(coalescer.take())
    await asyncio.sleep(0)
    coalescer.put("only")
    assert await asyncio.wait_for(taker, 1) == ["only"]


async def test_items_of_the_next_turns_of_the_loop_share_the_frame_of_an_idle_consumer() -> None:
    coalescer: Coalescer[int] = Coalescer()
    taker = asyncio.create_task(coalescer.take())
    await asyncio.sleep(0)
    for number in range(3):
        coalescer.put(number)
        await asyncio.sleep(0)
    assert await asyncio.wait_for(taker, 1) == list(range(3))


async def test_busy_consumer_takes_everything_that_waits() -> None:
    coalescer: Coalescer[int] = Coalescer()
    for number in range(100):
        coalescer.put(number)
    assert await coalescer.take() == list(range(100))


@given(costs=st.lists(st.integers(1, 50), max_size=60), items_max=st.integers(1, 10), cost_max=st.integers(1, 60))
def test_frames_hold_every_item_once_in_order_and_within_limits(
    costs: list[int], items_max: int, cost_max: int
) -> None:
    async def frames() -> list[list[tuple[int, int]]]:
        coalescer: Coalescer[tuple[int, int]] = Coalescer(
            CoalescerLimits(frame_items_max=items_max, frame_cost_max=cost_max)
        )
        for item in enumerate(costs):
            coalescer.put(item, item[1])
        coalescer.close()
        taken = []
        while coalescer:
            taken.append(await coalescer.take())
        assert coalescer.cost == 0
        return taken

    taken = asyncio.run(frames())
    assert [item for frame in taken for item in frame] == list(enumerate(costs))
    for frame in taken:
        assert 1 <= len(frame) <= items_max
        assert sum(cost for _, cost in frame) <= cost_max or len(frame) == 1


async def test_put_refuses_beyond_the_item_and_the_cost_limit() -> None:
    few: Coalescer[int] = Coalescer(CoalescerLimits(items_max=1))
    few.put(1)
    with pytest.raises(CoalescerFull):
        few.put(2)
    small: Coalescer[int] = Coalescer(CoalescerLimits(cost_max=10))
    small.put(1, cost=11)
    with pytest.raises(CoalescerFull):
        small.put(2, cost=1)


async def test_room_returns_when_the_consumer_has_taken() -> None:
    coalescer: Coalescer[int] = Coalescer(CoalescerLimits(items_max=1))
    coalescer.put(1)
    waiting = asyncio.create_task(coalescer.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await coalescer.take()
    await asyncio.wait_for(waiting, 1)
    coalescer.put(2)


async def test_nudge_wakes_the_consumer_with_nothing() -> None:
    coalescer: Coalescer[int] = Coalescer()
    coalescer.nudge()
    assert await coalescer.take() == []
    taker = asyncio.create_task(coalescer.take())
    await asyncio.sleep(0)
    coalescer.nudge()
    assert await asyncio.wait_for(taker, 1) == []


async def test_close_lets_the_rest_be_taken_and_then_ends() -> None:
    coalescer: Coalescer[int] = Coalescer()
    coalescer.put(1)
    coalescer.close()
    with pytest.raises(CoalescerClosed):
        coalescer.put(2)
    assert await coalescer.take() == [1]
    with pytest.raises(CoalescerClosed):
        await coalescer.take()


async def test_close_wakes_producers_and_the_consumer() -> None:
    coalescer: Coalescer[int] = Coalescer(CoalescerLimits(items_max=1))
    taker = asyncio.create_task(coalescer.take())
    await asyncio.sleep(0)
    coalescer.close()
    with pytest.raises(CoalescerClosed):
        await asyncio.wait_for(taker, 1)

    full: Coalescer[int] = Coalescer(CoalescerLimits(items_max=1))
    full.put(1)
    producer = asyncio.create_task(full.room())
    await asyncio.sleep(0)
    full.close()
    await asyncio.wait_for(producer, 1)


async def test_cancelled_take_loses_nothing() -> None:
    coalescer: Coalescer[int] = Coalescer()
    taker = asyncio.create_task(coalescer.take())
    await asyncio.sleep(0)
    coalescer.put(1)
    taker.cancel()
    await asyncio.gather(taker, return_exceptions=True)
    assert taker.cancelled()
    assert await coalescer.take() == [1]
