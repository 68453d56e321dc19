"""Ordered streams: the order of answers, the limits of work and memory, cancellation, and the end of a stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tei.v1 import tei_pb2 as tei
from tokenizer_svc.tei import ordered_stream
from tokenizer_svc.tei.ordered_stream import OrderedStream


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


class ManualAnswers:
    """Answers a number when the test says so, and records which it started and cancelled."""

    def __init__(self, size_bytes: int = 0) -> None:
        self.text = "x" * size_bytes
        self.started: list[int] = []
        self.cancelled: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}

    def finish(self, number: int) -> None:
        self.gates.setdefault(number, asyncio.Event()).set()

    async def answer(self, number: int) -> tei.SimpleToken:
        self.started.append(number)
        try:
            await self.gates.setdefault(number, asyncio.Event()).wait()
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        return tei.SimpleToken(id=number, text=self.text)


async def settle(rounds: int = 5_000) -> None:
    for _ in range(rounds):
        await asyncio.sleep(0)


async def ids_of(stream: OrderedStream[Any, tei.SimpleToken], taken: list[int] | None = None) -> list[int]:
    """All ids; those before an error are in `taken`."""
    taken = [] if taken is None else taken
    async with aclosing(stream.responses()) as responses:
        async for response in responses:
            taken.append(response.id)
            await settle(rounds=10)
    return taken


@given(order=st.permutations(range(8)))
def test_answers_keep_the_order_of_their_requests(order: list[int]) -> None:
    async def answered() -> list[int]:
        manual = ManualAnswers()
        answers = asyncio.create_task(ids_of(OrderedStream(numbers(8), manual.answer)))
        for number in order:
            manual.finish(number)
            await asyncio.sleep(0)
        return await answers

    assert asyncio.run(answered()) == list(range(8))


async def test_a_slow_answer_holds_up_no_work_until_the_limit_in_flight() -> None:
    manual = ManualAnswers()
    answers = asyncio.create_task(ids_of(OrderedStream(numbers(3000), manual.answer)))
    await settle()
    assert len(manual.started) == ordered_stream.IN_FLIGHT_MAX
    for number in range(1, 3000):  # all but the first
        manual.finish(number)
    await settle()
    assert len(manual.started) == 3000
    assert not answers.done()
    manual.finish(0)
    assert await answers == list(range(3000))


async def test_answers_that_nobody_takes_are_kept_up_to_a_limit() -> None:
    manual = ManualAnswers(size_bytes=1000)
    for number in range(3000):
        manual.finish(number)
    with patch.object(ordered_stream, "KEPT_BYTES_MAX", 100_000):
        stream = OrderedStream(numbers(3000), manual.answer)
        async with aclosing(stream.responses()) as responses:
            taken = [(await anext(responses)).id]
            await settle()
            assert 100 <= len(manual.started) <= 100 + ordered_stream.IN_FLIGHT_MAX
            taken += [response.id async for response in responses]
    assert taken == list(range(3000))


async def test_the_first_error_comes_after_the_answers_before_it_and_cancels_the_rest() -> None:
    manual = ManualAnswers()

    async def answer(number: int) -> tei.SimpleToken:
        if number == 2:
            raise HeddleError(ErrorKind.EMPTY_INPUT, "the text is empty")
        return await manual.answer(number)

    manual.finish(0)
    manual.finish(1)
    taken: list[int] = []
    with pytest.raises(HeddleError, match="the text is empty"):
        await ids_of(OrderedStream(numbers(10), answer), taken)
    assert taken == [0, 1]
    assert manual.cancelled == [3, 4, 5, 6, 7, 8, 9]


async def test_a_caller_that_leaves_cancels_what_is_in_flight() -> None:
    manual = ManualAnswers()
    answers = asyncio.create_task(ids_of(OrderedStream(numbers(10), manual.answer)))
    await settle()
    answers.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answers
    assert sorted(manual.cancelled) == list(range(10))


async def test_requests_that_were_read_are_answered_when_reading_stops() -> None:
    async def endless() -> AsyncIterator[int]:
        for number in range(3):
            yield number
        await asyncio.Event().wait()

    manual, taken = ManualAnswers(), list[int]()
    stream = OrderedStream(endless(), manual.answer)
    asyncio.get_running_loop().call_later(0.01, stream.stop_reading)
    for number in range(3):
        asyncio.get_running_loop().call_later(0.02, manual.finish, number)
    with pytest.raises(HeddleError) as caught:
        await ids_of(stream, taken)
    assert taken == [0, 1, 2]
    assert caught.value.kind is ErrorKind.UNAVAILABLE


async def test_a_stream_that_is_stopped_before_it_reads_ends_at_once() -> None:
    stream = OrderedStream(numbers(3), ManualAnswers().answer)
    answers = asyncio.create_task(ids_of(stream))
    await asyncio.sleep(0)  # the reader is created, and has not run yet
    stream.stop_reading()
    with pytest.raises(HeddleError, match="shutting down"):
        await asyncio.wait_for(answers, 1)


async def test_a_broken_request_stream_is_an_error_after_the_answers() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 0
        raise ConnectionError("gone")

    manual, taken = ManualAnswers(), list[int]()
    manual.finish(0)
    with pytest.raises(ConnectionError):
        await ids_of(OrderedStream(broken(), manual.answer), taken)
    assert taken == [0]
