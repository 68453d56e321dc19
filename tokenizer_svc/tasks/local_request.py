"""Carries out a request that needs no engine, on the tokenizer's thread, where its inputs take turns with other work.

The tasks of `Tokenize` and `Decode` make a `LocalPlan`; the servicer makes a `LocalRequest` of it.
"""

import asyncio
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from heddle.rpc.deadlines import NEVER, deadline_exceeded
from heddle.rpc.errors import HeddleError
from heddle.rpc.stream import Reply
from heddle.v1 import inference_pb2
from tokenizer_svc.encoder import TURN_BYTES, Encoder
from tokenizer_svc.text.sequence import FieldOf


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """What to compute for each input, by index, and how the results become the answer."""

    sizes: Sequence[int]  # bytes of each input
    answer: Callable[[int], Any]  # called on the tokenizer's thread; raises HeddleError
    assemble: Callable[[Sequence[Any]], inference_pb2.InferenceOutcome]
    field_of: FieldOf


class LocalRequest:
    """Calls `reply` once, unless it is cancelled first."""

    def __init__(
        self,
        plan: LocalPlan,
        deadline: float,
        reply: Reply[inference_pb2.InferenceOutcome],
        *,
        on_end: Callable[["LocalRequest"], None] = lambda request: None,
    ) -> None:
        """`on_end` is called once, however the request ends."""
        self._plan = plan
        self._deadline = deadline
        self._reply = reply
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None
        self._done = False

    def start(self, encoder: Encoder) -> None:
        self._task = asyncio.create_task(self._run(encoder))

    def cancel(self) -> None:
        if not self._done:
            self._end()
            if self._task is not None:
                self._task.cancel()

    def _end(self) -> None:
        self._done = True
        self._on_end(self)

    async def _run(self, encoder: Encoder) -> None:
        outcome: inference_pb2.InferenceOutcome | HeddleError
        try:
            async with asyncio.timeout_at(None if self._deadline == NEVER else self._deadline):
                outcome = await self._outcome(encoder)
        except TimeoutError:
            outcome = deadline_exceeded()
        except Exception as exception:  # noqa: BLE001 - logged by from_exception
            outcome = HeddleError.from_exception(exception)
        self._end()
        self._reply(outcome)

    async def _outcome(self, encoder: Encoder) -> inference_pb2.InferenceOutcome:
        sizes = self._plan.sizes
        turns = [functools.partial(self._answers, turn) for turn in divide_turns(sizes)]
        answers = await encoder.run_each(turns, sum(sizes))
        return self._plan.assemble([answer for turn in answers for answer in turn])

    def _answers(self, turn: range) -> list[Any]:
        return [self._answer(index) for index in turn]

    def _answer(self, index: int) -> Any:
        try:
            return self._plan.answer(index)
        except HeddleError as error:
            error.field = self._plan.field_of(index)
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
