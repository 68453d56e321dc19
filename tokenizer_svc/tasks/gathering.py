"""One request on its way through the pod: inputs at the encoder, sequences at the engines, outcomes gathered.

The edge makes a `Gathering` per request, from the `Plan` that the request's task made of it. The first input that fails
fails the request, and what is still on its way is cancelled: a request is answered once, wholly or with one error. So
does an answer that grows too large for a message, as soon as that is known: mostly before its inputs are computed.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.stream import Cancel, Reply, Submit, cancel_all
from heddle.v1 import engine_pb2, inference_pb2
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.sequence import Result, TokenSequence, characters_of
from tokenizer_svc.tasks.plan import Plan
from tokenizer_svc.tasks.promised import PromisedBytes

# What is wrong with one input, and not with the pod that worked on it.
KINDS_OF_INPUT = frozenset({ErrorKind.INVALID_INPUT, ErrorKind.EMPTY_INPUT, ErrorKind.TOO_LARGE, ErrorKind.BAD_OUTPUT})


class Gathering:
    """`reply` is told once, unless `cancel` came first."""

    def __init__(
        self,
        plan: Plan,
        item: inference_pb2.InferenceItem,
        deadline: float,
        reply: Reply[inference_pb2.InferenceOutcome],
        engines: Submit[engine_pb2.Submission, engine_pb2.Outcome],
        *,
        promised: PromisedBytes,
        device: str,
        on_end: Callable[["Gathering"], None],
    ) -> None:
        """The context of `item` names a flow. `device` is the engines'. `on_end` is called once, however it ends."""
        self._plan = plan
        self._context = item.context
        self._deadline = deadline
        self._reply = reply
        self._engines = engines
        self._promised = promised
        self._device = device
        self._on_end = on_end
        self._answer_bytes = 0  # that are known of so far
        self._cancels: list[Cancel] = []  # the encoder's, and one of each input that is encoded
        self._parts: list[Any] = [None] * len(plan.inputs)  # what was read of the outcome of each input
        self._missing = len(plan.inputs)
        self._tokens = 0
        self._truncated_inputs = 0
        self._queue_us = 0
        self._compute_us = 0
        self._started = time.perf_counter()
        self._encoded = self._started
        self._done = False

    def start(self, encoder: Encoder) -> None:
        """Raises HeddleError when the pod has too much to do already."""
        plan = self._plan
        job = encoder.submit(
            *(plan.inputs, plan.options, self._on_encoded),
            field_of=plan.field_of,
            first_options=plan.first_options,
            flow=self._context.flow,
        )
        self._cancels.append(functools.partial(encoder.cancel, job))

    def cancel(self) -> None:
        if not self._done:
            cancels = self._cancels
            self._end()
            cancel_all(cancels)

    def _end(self) -> None:
        self._done = True
        self._cancels = []  # They lead back here. Such circles were a tenth of the pod's time, to find and free them.
        self._promised.give_back(self._answer_bytes)
        self._on_end(self)

    def _on_encoded(self, start: int, results: list[Result]) -> None:
        self._encoded = time.perf_counter()
        for index, result in enumerate(results, start):
            if self._done:
                return
            if isinstance(result, HeddleError):
                self._fail(result)
                return
            try:
                self._count(self._plan.expected_bytes(result))
            except HeddleError as too_much:
                self._fail(too_much)
                return
            self._send(index, result)

    def _count(self, answer_bytes: int) -> None:
        """Raises TOO_LARGE once there are more than an answer may have, OVERLOADED when all answers have too many."""
        if answer_bytes:
            self._answer_bytes += answer_bytes
            self._promised.take(answer_bytes, self._answer_bytes)

    def _send(self, index: int, sequence: TokenSequence) -> None:
        self._tokens += sequence.tokens
        self._truncated_inputs += sequence.truncated
        submission = self._plan.submission(index, sequence, self._context)
        reply = functools.partial(self._on_outcome, index, sequence)
        self._cancels.append(self._engines(submission, self._deadline, reply))

    def _on_outcome(self, index: int, sequence: TokenSequence, outcome: engine_pb2.Outcome | HeddleError) -> None:
        if self._done:
            return
        outcome = checked(outcome, has_more=bool(self._plan.more_outputs))
        if isinstance(outcome, HeddleError):
            if outcome.kind in KINDS_OF_INPUT:
                outcome.field = self._plan.field_of(index)
            self._fail(outcome)
            return
        try:
            self._take(index, sequence, outcome)
        except Exception as exception:  # noqa: BLE001 - logged by from_exception
            self._fail(HeddleError.from_exception(exception))

    def _take(self, index: int, sequence: TokenSequence, outcome: engine_pb2.Outcome) -> None:
        part = self._plan.read(index, sequence, outcome)
        self._count(self._plan.read_bytes(part))
        self._parts[index] = part
        self._missing -= 1
        self._queue_us = max(self._queue_us, outcome.queue_us)
        self._compute_us = max(self._compute_us, outcome.compute_us)
        if not self._missing:
            self._finish()

    def _fail(self, error: HeddleError) -> None:
        self.cancel()
        self._reply(error)

    def _finish(self) -> None:
        answer = self._plan.assemble(self._parts)
        response = getattr(answer, str(answer.WhichOneof("result")))
        usage, timings = response.usage, response.timings
        usage.tokens = self._tokens
        usage.truncated_inputs = self._truncated_inputs
        usage.characters = sum(map(characters_of, self._plan.inputs))
        usage.device = self._device
        timings.tokenize_us = microseconds(self._encoded - self._started)
        timings.queue_us = self._queue_us
        timings.compute_us = self._compute_us
        timings.total_us = microseconds(time.perf_counter() - self._started)
        self._end()
        self._reply(answer)


def checked(outcome: engine_pb2.Outcome | HeddleError, *, has_more: bool) -> engine_pb2.Outcome | HeddleError:
    """Replaces an outcome with NaN or infinity by BAD_OUTPUT: JSON has neither, and `null` is no answer. `has_more` is
    false for a request of one output, whose `more` need not be looked at."""
    if isinstance(outcome, HeddleError):
        return outcome
    if is_finite(outcome) and (not has_more or all(map(is_finite, outcome.more))):
        return outcome
    return HeddleError(ErrorKind.BAD_OUTPUT, "the engine sent NaN or infinity for this input")


def is_finite(result: engine_pb2.Outcome | engine_pb2.Result) -> bool:
    if result.WhichOneof("result") == "sparse":
        return tensors.are_finite(np.frombuffer(result.sparse.values, "<f4"))
    return tensors.is_finite(result.tensor)


def microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
