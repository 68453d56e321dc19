"""The checks can fail: some seed finds each deliberate fault in the services, and reports the rule that it breaks."""

import asyncio
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest

import engine_svc.batch_runner
from engine_svc.batching import Batch
from engine_svc.fair_queue import FairQueue
from engine_svc.scheduler import Scheduler
from heddle.rpc.deadlines import Alarm
from heddle.rpc.pending import Pending
from heddle.rpc.pod import Pod
from heddle.rpc.pool import Pool
from heddle.rpc.stream_server import StreamServer
from heddle.rpc.stream_session import Session
from tests.simulation.__main__ import report
from tests.simulation.world import simulate
from tokenizer_svc.tasks.engine_request import MemoryBudget

SEEDS = range(60)


def answer_twice(self: Pending[Any, Any], outcome: Any) -> None:
    self.answered = True
    self.reply(outcome)
    self.reply(outcome)


def lose_every_tenth() -> Callable[..., None]:
    reply, count = Session._reply, iter(range(10**9))

    def lossy(*of: Any) -> None:
        if next(count) % 10:
            reply(*of)

    return lossy


def forget_the_lost(self: Pool[Any, Any], pod: Pod[Any, Any], unanswered: Any, suspects: Any) -> None:
    self.pod_changed()


def keep_the_pass(self: Scheduler, batch: Batch) -> None:
    with self._lock:
        self._passes_free += 2
        self._pass_times._freed_at += [0.0, 0.0]
        self._cores_free += 2
        self._wake()


async def never(self: StreamServer[Any, Any]) -> None:
    while True:
        await asyncio.sleep(1)


FAULTS: dict[str, tuple[Any, str, Any, str]] = {
    "a pool answers twice": (Pending, "answer", answer_twice, "answered an item 2 times"),
    "a stream loses an outcome": (Session, "_reply", lose_every_tenth(), "never answered an item"),
    "a pool forgets what a lost pod had": (Pool, "pod_lost", forget_the_lost, "never answered an item"),
    "a pool ignores deadlines": (Alarm, "set", lambda self, deadline: None, "s after the deadline"),
    "a batch ignores its budget": (
        *(Batch, "count_fitting", lambda self, submission: submission.waiting),
        "ran a batch of",
    ),
    "a queue is never full": (
        *(Scheduler, "_find_refusal", lambda self, submission, now: None),
        "tokens into its queue",
    ),
    "passes begin before others end": (Scheduler, "give_back", keep_the_pass, "passes at once"),
    "a flow keeps its turn": (FairQueue, "move_to_end", lambda self, flow: None, "passed over"),
    "a request keeps its memory": (MemoryBudget, "give_back", lambda self, count: None, "bytes of answers"),
    "rows are mixed up": (
        *(engine_svc.batch_runner, "drop_duplicates"),
        *(lambda batch: (batch.take(range(len(batch))[::-1]), None), "wrong vectors"),
    ),
    "a pod never drains": (StreamServer, "until_idle", never, "does not stop"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str) -> None:
    where, name, broken, rule = FAULTS[fault]
    with patch.object(where, name, broken):
        found = next((result for seed in SEEDS if rule in str((result := simulate(seed)).violations)), None)
    assert found is not None
    assert f"--seed {found.seed} --verbose" in report(found)
