"""An item that crashes pods fails, and those that were computed beside it do not."""

import asyncio
from typing import Any

import pytest

from heddle.rpc.deadlines import NEVER
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.pending import Group, Pending
from heddle.rpc.pool import PoolLimits
from heddle.rpc.quarantine import GROUPS_MAX
from heddle.rpc.stream import Cancel, Reply, nothing_to_cancel
from heddle.v1 import engine_pb2
from tests.heddle.rpc.pods import EnginePod, Held, ask, echo, eventually, pool_of, read_pool, submission

POISON = b"bad!"


class CrashingPod(EnginePod):
    """Answers after a moment, unless it has been sent POISON meanwhile: then all connections are lost."""

    def __init__(self) -> None:
        super().__init__(self.submit)
        self.crash: asyncio.Task[None] | None = None

    def submit(self, item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> Cancel:
        if item.sequences.token_ids == POISON:
            self.crash = asyncio.create_task(self.stop())
        elif self.crash is None:
            asyncio.get_running_loop().call_later(0.005, lambda: self.crash or echo(item, deadline, reply))
        return nothing_to_cancel


@pytest.mark.parametrize(
    ("neighbours", "culprits", "crashes"),
    [(0, 1, 2), (GROUPS_MAX - 1, 1, 2), (6 * GROUPS_MAX, 1, 3), (GROUPS_MAX - 2, 2, 3)],
)
async def test_the_culprit_is_found_and_its_neighbours_are_answered(
    neighbours: int, culprits: int, crashes: int
) -> None:
    pods = [CrashingPod() for _ in range(crashes + 1)]
    first = await pods[0].start()
    pool = await pool_of(first, *[await pod.start() for pod in pods[1:]])
    await eventually(lambda: len(pool._available) == len(pods))
    pool._available = [pool._pods[first]]  # so that all items are lost together
    answers = [ask(pool, number.to_bytes(4, "little"))[0] for number in range(neighbours // 2)]
    poisoned = [ask(pool, POISON)[0] for _ in range(culprits)]
    answers += [ask(pool, number.to_bytes(4, "little"))[0] for number in range(neighbours // 2, neighbours)]
    pool.pod_changed()
    assert await asyncio.wait_for(asyncio.gather(*answers), 20) == [n.to_bytes(4, "little") for n in range(neighbours)]
    for answer in poisoned:
        with pytest.raises(HeddleError, match="two pods crashed") as raised:
            await asyncio.wait_for(answer, 20)
        assert raised.value.kind is ErrorKind.INTERNAL
    assert sum(pod.crash is not None for pod in pods) == crashes
    assert (pool.counts.lost_pods, pool.unanswered) == (crashes, 0)
    assert read_pool(pool).value("heddle_rpc_poisoned_items_total") == culprits
    await pool.close()
    for pod in pods:
        await pod.stop()


async def test_a_pod_that_ends_a_stream_with_an_error_has_not_crashed() -> None:
    """It may refuse a client that reads too slowly, or whose key was revoked."""

    def refuse() -> int:
        raise HeddleError(ErrorKind.UNAUTHENTICATED, "the key was revoked")

    held = Held()
    pod = EnginePod(held.submit)
    pool = await pool_of(await pod.start())
    await pool.wait_ready()
    answers = [ask(pool, b"1234")[0]]
    await eventually(lambda: len(held.items) == 1)
    (session,) = pod.stream._sessions
    session._check_key = refuse
    held.items.clear()
    answers.append(ask(pool, b"5678")[0])
    await eventually(lambda: len(held.items) == 2)  # on the next stream
    assert all(pending.group is None for pending in pool._list_unanswered())
    held.answer_all()
    assert await asyncio.wait_for(asyncio.gather(*answers), 5) == [b"1234", b"5678"]
    await pool.close()
    await pod.stop()


async def test_an_item_that_had_not_been_sent_is_not_blamed_for_a_crash() -> None:
    pool: Any = await pool_of("127.0.0.1:1")
    (pod,) = pool._pods.values()
    answers: list[Any] = []
    unsent, sent = (Pending(submission(), NEVER, answers.append, size=0, cost=1) for _ in range(2))
    pod.group = Group([unsent], lambda: None)
    pool.pod_lost(pod, [unsent, sent], [sent])
    assert not answers
    assert set(pool._quarantine.items) == {unsent, sent}
    await pool.close()
    assert len(answers) == 2


async def test_items_that_wait_in_quarantine_fail_if_no_pod_comes_back() -> None:
    pod = CrashingPod()
    pool = await pool_of(await pod.start(), limits=PoolLimits(no_pod_s_max=0.3))
    await pool.wait_ready()
    answers = [ask(pool, one)[0] for one in (b"good", POISON)]
    for answer in answers:
        with pytest.raises(HeddleError, match="no pod can be reached"):
            await asyncio.wait_for(answer, 5)
    assert not pool.unanswered
    await pool.close()
