"""A request that the tokenizer answers alone, on its thread, where its inputs take turns with other work.

The tasks of `Tokenize` and `Decode` make a `LocalPlan` of their request; the servicer runs it as a `LocalRequest`.
"""

import asyncio
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from heddle.rpc.deadlines import NEVER, spent
from heddle.rpc.errors import HeddleError
from heddle.rpc.stream import Reply
from heddle.v1 import inference_pb2
from tokenizer_svc.encoder import TURN_BYTES, Encoder
from tokenizer_svc.text.inputs import FieldName


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """Inputs by index, what to make of each on the tokenizer's thread, and the answer to the request."""

    sizes: Sequence[int]  # bytes of each input
    answer: Callable[[int], Any]  # of the input of this index; raises HeddleError
    assemble: Callable[[Sequence[Any]], inference_pb2.InferenceOutcome]
    field_of: FieldName


class LocalRequest:
    """Calls `reply` once, unless `cancel` comes first."""

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
            outcome = spent()
        except Exception as exception:  # noqa: BLE001 - logged by from_exception
            outcome = HeddleError.from_exception(exception)
        self._end()
        self._reply(outcome)

    async def _outcome(self, encoder: Encoder) -> inference_pb2.InferenceOutcome:
        sizes = self._plan.sizes
        turns = [functools.partial(self._answers, turn) for turn in turns_of(sizes)]
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


def turns_of(sizes: Sequence[int]) -> Iterator[range]:
    """Inputs in a row that have TURN_BYTES together, or the one that has more."""
    start = spent_bytes = 0
    for index, size in enumerate(sizes):
        if index > start and spent_bytes + size > TURN_BYTES:
            yield range(start, index)
            start, spent_bytes = index, 0
        spent_bytes += size
    yield range(start, len(sizes))
