"""Answers a request that needs no engine, on the tokenizer's thread, where its inputs take turns with other work.

The servicer runs `answer_locally` as a task of its own for each `LocalPlan`.
"""

import asyncio
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from heddle.rpc.deadlines import NEVER, deadline_exceeded
from heddle.rpc.errors import HeddleError
from heddle.rpc.stream import Reply
from heddle.v1 import inference_pb2
from tokenizer_svc.encoder import TURN_BYTES, Encoder
from tokenizer_svc.tasks.plan import LocalPlan


async def answer_locally(
    plan: LocalPlan, encoder: Encoder, deadline: float, reply: Reply[inference_pb2.InferenceOutcome]
) -> None:
    """Calls `reply` once, unless its task is cancelled first."""
    outcome: inference_pb2.InferenceOutcome | HeddleError
    try:
        async with asyncio.timeout_at(None if deadline == NEVER else deadline):
            outcome = await compute_answer(plan, encoder)
    except TimeoutError:
        outcome = deadline_exceeded()
    except Exception as exception:  # noqa: BLE001 - logged by from_exception
        outcome = HeddleError.from_exception(exception)
    reply(outcome)


async def compute_answer(plan: LocalPlan, encoder: Encoder) -> inference_pb2.InferenceOutcome:
    turns = [functools.partial(answer_turn, plan, turn) for turn in divide_turns(plan.sizes)]
    answers = await encoder.run_each(turns, sum(plan.sizes))
    return plan.assemble([answer for turn in answers for answer in turn])


def answer_turn(plan: LocalPlan, turn: range) -> list[Any]:
    return [answer_one(plan, index) for index in turn]


def answer_one(plan: LocalPlan, index: int) -> Any:
    try:
        return plan.answer(index)
    except HeddleError as error:
        error.field = plan.field_of(index)
        raise


def divide_turns(sizes: Sequence[int]) -> Iterator[range]:
    """Yields ranges of inputs of up to TURN_BYTES together. A larger input is a range of its own."""
    start = spent_bytes = 0
    for index, size in enumerate(sizes):
        if index > start and spent_bytes + size > TURN_BYTES:
            yield range(start, index)
            start, spent_bytes = index, 0
        spent_bytes += size
    yield range(start, len(sizes))
