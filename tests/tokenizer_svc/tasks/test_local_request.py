"""A request without an engine takes turns on the tokenizer's thread, and ends at its deadline or when cancelled."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from heddle.rpc.deadlines import NEVER, deadline_after
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2 as pb
from tests.tokenizer_svc.encoding import encode_inputs
from tests.tokenizer_svc.parity import load_parity
from tokenizer_svc.encoder import TURN_BYTES, Encoder
from tokenizer_svc.tasks.local_request import answer_locally, divide_turns
from tokenizer_svc.tasks.plan import LocalPlan
from tokenizer_svc.text.inputs import Options, indexed_field
from tokenizer_svc.text.sequences import TokenSequence

Outcome = pb.InferenceOutcome | HeddleError


@pytest.fixture
async def encoder() -> AsyncIterator[Encoder]:
    made = Encoder(load_parity("word_piece").ours, inline_bytes_max=0)
    yield made
    await made.close()


def plan_of(answer: Callable[[int], str], turns: int) -> LocalPlan:
    def assemble(texts: Sequence[str]) -> pb.InferenceOutcome:
        return pb.InferenceOutcome(decode=pb.DecodeResponse(texts=texts))

    return LocalPlan([TURN_BYTES] * turns, answer, assemble, indexed_field("inputs"))


async def outcome_of(plan: LocalPlan, encoder: Encoder, deadline: float = NEVER) -> Outcome:
    outcomes: list[Outcome] = []
    await answer_locally(plan, encoder, deadline, outcomes.append)
    [outcome] = outcomes
    return outcome


async def test_answers_come_in_order(encoder: Encoder) -> None:
    outcome = await outcome_of(plan_of(str, 5), encoder)
    assert isinstance(outcome, pb.InferenceOutcome)
    assert list(outcome.decode.texts) == ["0", "1", "2", "3", "4"]
    assert encoder.waiting_bytes == 0


async def test_others_are_tokenized_between_its_turns(encoder: Encoder) -> None:
    done: list[int] = []

    def answer(index: int) -> str:
        time.sleep(0.02)
        done.append(index)
        return ""

    request = asyncio.create_task(outcome_of(plan_of(answer, 50), encoder))
    await asyncio.sleep(0.05)
    (result,) = await encode_inputs(encoder, ["short"], Options())
    assert isinstance(result, TokenSequence)
    assert len(done) < 25
    await request


async def test_a_request_fails_at_its_deadline(encoder: Encoder) -> None:
    done: list[int] = []

    def answer(index: int) -> str:
        time.sleep(0.05)
        done.append(index)
        return ""

    began = time.monotonic()
    outcome = await outcome_of(plan_of(answer, 100), encoder, deadline_after(0.1))
    assert isinstance(outcome, HeddleError)
    assert outcome.kind is ErrorKind.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 1.0
    await asyncio.sleep(0.2)
    assert len(done) < 10
    assert encoder.waiting_bytes == 0


async def test_a_cancelled_request_stops_without_a_reply(encoder: Encoder) -> None:
    done: list[int] = []
    replies: list[Outcome] = []

    def answer(index: int) -> str:
        time.sleep(0.02)
        done.append(index)
        return ""

    task = asyncio.create_task(answer_locally(plan_of(answer, 100), encoder, NEVER, replies.append))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.sleep(0.2)
    assert not replies
    assert len(done) < 10
    assert encoder.waiting_bytes == 0


async def test_an_error_names_its_input(encoder: Encoder) -> None:
    def refuse(index: int) -> str:
        if index == 1:
            raise HeddleError(ErrorKind.INVALID_INPUT, "no")
        return ""

    outcome = await outcome_of(plan_of(refuse, 3), encoder)
    assert isinstance(outcome, HeddleError)
    assert (outcome.kind, outcome.field) == (ErrorKind.INVALID_INPUT, "inputs[1]")


async def test_a_bug_is_an_internal_error(encoder: Encoder) -> None:
    outcome = await outcome_of(plan_of(lambda index: str(1 // index), 1), encoder)
    assert isinstance(outcome, HeddleError)
    assert (outcome.kind, outcome.message) == (ErrorKind.INTERNAL, "internal error")


async def test_too_much_waiting_is_refused() -> None:
    def answer(index: int) -> str:
        time.sleep(0.05)
        return ""

    small = Encoder(load_parity("word_piece").ours, waiting_bytes_max=3 * TURN_BYTES)
    first = asyncio.create_task(outcome_of(plan_of(answer, 2), small))
    await asyncio.sleep(0.02)
    outcome = await outcome_of(plan_of(str, 2), small)
    assert isinstance(outcome, HeddleError)
    assert outcome.kind is ErrorKind.OVERLOADED
    assert isinstance(await first, pb.InferenceOutcome)
    await small.close()


def test_a_turn_is_some_kilobytes_or_one_input() -> None:
    sizes = [1000, 1000, 3000, 9000, 1]
    assert list(divide_turns(sizes)) == [range(2), range(2, 3), range(3, 4), range(4, 5)]
