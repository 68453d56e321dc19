"""Carries out the plan of a request: encodes its inputs, submits sequences to engines, and assembles the answer.

The servicer makes an `EngineRequest` of each `Plan`. A request gets one answer or one error: the first input that fails
fails the request, and its other submissions are cancelled. A request also fails as soon as its answer is known to be
too large, mostly before anything is computed.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.stream import LARGE_BYTES_MIN, Cancel, LargeOutcome, ServerReply, Submit, cancel_all
from heddle.v1 import engine_pb2, inference_pb2, item_pb2
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.tasks.grouping import Group, GroupLimits, group_sequences
from tokenizer_svc.tasks.outcomes import find_failure
from tokenizer_svc.tasks.plan import Plan
from tokenizer_svc.text.inputs import count_characters
from tokenizer_svc.text.sequences import TokenSequences

RETRY_AFTER_MS = 1_000

# Errors of an input, as opposed to errors of the pod that computed it.
KINDS_OF_INPUT = frozenset({ErrorKind.INVALID_INPUT, ErrorKind.EMPTY_INPUT, ErrorKind.TOO_LARGE, ErrorKind.BAD_OUTPUT})


class MemoryBudget:
    """Limits the bytes of one answer and of all answers in progress. A request takes bytes when it learns of them, and
    gives them back once it has failed, or its answer has been sent."""

    def __init__(self, *, answer_bytes_max: int, answers_bytes_max: int) -> None:
        self.answer_bytes_max = answer_bytes_max
        self.answers_bytes_max = answers_bytes_max
        self.total = 0

    def take(self, count: int, answer_bytes: int) -> None:
        """`answer_bytes` is the size of the answer so far. Raises TOO_LARGE or OVERLOADED after it took the bytes."""
        self.total += count
        if answer_bytes > self.answer_bytes_max:
            message = f"the answer would exceed the limit of {self.answer_bytes_max} bytes"
            raise HeddleError(ErrorKind.TOO_LARGE, f"{message}: send fewer or shorter inputs")
        if self.total > self.answers_bytes_max:
            message = "the answers in progress fill the memory set aside for them"
            raise HeddleError(ErrorKind.OVERLOADED, message, retry_after_ms=RETRY_AFTER_MS)

    def give_back(self, count: int) -> None:
        self.total -= count


class EngineRequest:
    """Calls `reply` once, unless it is cancelled first."""

    def __init__(
        self,
        plan: Plan,
        context: item_pb2.ItemContext,
        deadline: float,
        reply: ServerReply[inference_pb2.InferenceOutcome],
        engines: Submit[engine_pb2.Submission, engine_pb2.Outcome],
        *,
        limits: GroupLimits,
        memory: MemoryBudget,
        device: str,
        on_end: Callable[["EngineRequest"], None],
    ) -> None:
        """`context` names a flow. `device` is the engines'. `on_end` is called once, however the request ends."""
        self._plan = plan
        self._context = context
        self._deadline = deadline
        self._reply = reply
        self._engines = engines
        self._limits = limits
        self._memory = memory
        self._device = device
        self._on_end = on_end
        self._answer_bytes = 0  # known so far
        self._cancels: list[Cancel] = []  # of the encoder's job and of each submission
        self._parts: list[Any] = []  # read from the outcomes, in the order of the inputs
        self._missing = len(plan.inputs)  # inputs whose outcome has not been read
        self._tokens = 0
        self._truncated_inputs = 0
        self._queue_us = 0
        self._compute_us = 0
        self._started = time.monotonic()
        self._encoded = 0.0  # when the latest inputs were tokenized
        self._done = False

    def start(self, encoder: Encoder) -> None:
        """Raises OVERLOADED."""
        plan = self._plan
        job = encoder.submit(
            plan.inputs,
            plan.options,
            self._on_encoded,
            field_of=plan.field_of,
            first_options=plan.first_options,
            flow=self._context.flow,
            deadline=self._deadline,
        )
        self._cancels.append(functools.partial(encoder.cancel, job))

    @property
    def tokenization(self) -> tuple[float, float]:
        """When tokenization began and ended, in time.monotonic() seconds. It ends now if nothing is tokenized yet."""
        return self._started, self._encoded or time.monotonic()

    def cancel(self) -> None:
        if not self._done:
            cancels = self._cancels
            self._end()
            cancel_all(cancels)

    def _end(self, *, gives_back: bool = True) -> None:
        self._done = True
        self._cancels = []  # they refer to this object: freeing such cycles took a tenth of the pod's time
        if gives_back:
            self._memory.give_back(self._answer_bytes)
        self._on_end(self)

    def _on_encoded(self, start: int, sequences: TokenSequences) -> None:
        self._encoded = time.monotonic()
        if self._done:
            return
        if sequences.errors:
            self._fail(sequences.errors[min(sequences.errors)])
            return
        try:
            self._reserve(self._plan.expected_bytes(sequences))
        except HeddleError as error:
            self._fail(error)
            return
        self._tokens += sequences.tokens
        self._truncated_inputs += sum(sequences.truncated)
        for group in group_sequences(start, sequences, self._limits):
            if not self._done:
                self._send(group)

    def _reserve(self, answer_bytes: int) -> None:
        """Raises TOO_LARGE or OVERLOADED."""
        if answer_bytes:
            self._answer_bytes += answer_bytes
            self._memory.take(answer_bytes, self._answer_bytes)

    def _send(self, group: Group) -> None:
        reply = functools.partial(self._on_outcome, len(self._parts), group)
        self._parts.append(None)
        submission = self._plan.submission(group, self._context)
        self._cancels.append(self._engines(submission, self._deadline, reply))

    def _on_outcome(self, number: int, group: Group, outcome: engine_pb2.Outcome | HeddleError) -> None:
        if self._done:
            return
        if isinstance(outcome, HeddleError):
            self._fail(outcome)
            return
        try:
            failure = find_failure(outcome, len(group.sequences), 1 + len(self._plan.more_outputs))
            if failure is None:
                self._read(number, group, outcome)
            else:
                self._fail_for(group.start + failure.index, failure.error)
        except Exception as exception:  # noqa: BLE001 - logged by from_exception
            self._fail(HeddleError.from_exception(exception))

    def _read(self, number: int, group: Group, outcome: engine_pb2.Outcome) -> None:
        part = self._plan.read(group, outcome)
        self._reserve(self._plan.read_bytes(part))
        self._parts[number] = part
        self._missing -= len(group.sequences)
        self._queue_us = max(self._queue_us, outcome.queue_us)
        self._compute_us = max(self._compute_us, outcome.compute_us)
        if not self._missing:
            self._finish()

    def _fail_for(self, index: int, error: HeddleError) -> None:
        if error.kind in KINDS_OF_INPUT:
            error.field = self._plan.field_of(index)
        self._fail(error)

    def _fail(self, error: HeddleError) -> None:
        self.cancel()
        self._reply(error)

    def _finish(self) -> None:
        answer = self._plan.assemble(self._parts)
        response = getattr(answer, str(answer.WhichOneof("result")))
        usage, timings = response.usage, response.timings
        usage.tokens = self._tokens
        usage.truncated_inputs = self._truncated_inputs
        usage.characters = count_characters(self._plan.inputs)
        usage.device = self._device
        timings.tokenize_us = microseconds(self._encoded - self._started)
        timings.queue_us = self._queue_us
        timings.compute_us = self._compute_us
        timings.total_us = microseconds(time.monotonic() - self._started)
        is_large = self._answer_bytes >= LARGE_BYTES_MIN
        self._end(gives_back=not is_large)
        if is_large:
            release = functools.partial(self._memory.give_back, self._answer_bytes)
            self._reply(LargeOutcome(answer, self._answer_bytes, release))
        else:
            self._reply(answer)


def microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
