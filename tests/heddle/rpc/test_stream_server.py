"""The serving end of a stream: what goes wrong with one item stays with that item."""

import asyncio

import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.stream import Cancel, Reply
from heddle.v1 import engine_pb2
from tests.heddle.rpc.pods import EnginePod, Held, ask, pool_of


async def test_a_bug_that_one_item_meets_costs_the_others_nothing() -> None:
    def submit(item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> Cancel:
        if item.sequence.token_ids == b"bug!":
            raise ZeroDivisionError
        return held.submit(item, deadline, reply)

    held = Held()
    pod = EnginePod(submit)
    pool = await pool_of(await pod.start())
    neighbour = ask(pool, b"1234")[0]
    async with asyncio.timeout(5):
        while not held.items:
            await asyncio.sleep(0.005)
    with pytest.raises(HeddleError) as failed:
        await asyncio.wait_for(ask(pool, b"bug!")[0], 5)
    assert failed.value.kind is ErrorKind.INTERNAL
    assert not held.cancelled
    held.answer_all()
    assert await asyncio.wait_for(neighbour, 5) == b"1234"
    await pool.close()
    await pod.stop()
