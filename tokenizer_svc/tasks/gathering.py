"""One request on its way through the pod: inputs at the encoder, sequences at the engines, outcomes gathered.

The edge makes a `Gathering` per request, from the `Plan` that the request's task made of it. The first input that fails
fails the request, and what is still on its way is cancelled: a request is answered once, wholly or with one error.
"""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.stream import Cancel, Reply, Submit, cancel_all
from heddle.v1 import engine_pb2, inference_pb2, item_pb2, tensor_pb2
from tokenizer_svc.encoder import Encoder, Job
from tokenizer_svc.sequence import Input, Options, Result, TokenSequence

# What is wrong with one input, and not with the pod that worked on it.
KINDS_OF_INPUT = frozenset({ErrorKind.INVALID_INPUT, ErrorKind.EMPTY_INPUT, ErrorKind.TOO_LARGE, ErrorKind.BAD_OUTPUT})

Outcomes = Sequence[engine_pb2.Outcome]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request comes down to: sequences, what is wanted of each, and how their outcomes become its answer."""

    inputs: Sequence[Input]
    options: Options
    assemble: Callable[[Outcomes, item_pb2.Usage, item_pb2.Timings], inference_pb2.InferenceOutcome]
    field: str  # the request field that holds the inputs
    output: engine_pb2.Output = engine_pb2.OUTPUT_UNSPECIFIED
    skip_normalization: bool = False
    dimensions: int = 0
    data_type: tensor_pb2.DataType = tensor_pb2.DATA_TYPE_FLOAT32

    def submission(self, sequence: TokenSequence, context: item_pb2.ItemContext) -> engine_pb2.Submission:
        return engine_pb2.Submission(
            context=context,
            sequence=engine_pb2.Sequence(
                token_ids=sequence.token_ids,
                type_ids=sequence.type_ids,
                prompt_tokens=sequence.prompt_tokens,
                output=self.output,
                skip_normalization=self.skip_normalization,
                dimensions=self.dimensions,
                data_type=self.data_type,
            ),
        )


class Gathering:
    """`reply` is told once, unless `cancel` came first."""

    def __init__(
        self,
        plan: Plan,
        item: inference_pb2.InferenceItem,
        deadline: float,
        reply: Reply[inference_pb2.InferenceOutcome],
        engines: Submit[engine_pb2.Submission, engine_pb2.Outcome],
    ) -> None:
        """The context of `item` names a flow."""
        self._plan = plan
        self._context = item.context
        self._deadline = deadline
        self._reply = reply
        self._engines = engines
        self._job: Job | None = None
        self._cancels: list[Cancel] = []  # by input, of those that are encoded
        self._outcomes: dict[int, engine_pb2.Outcome] = {}  # by input
        self._usage = item_pb2.Usage()
        self._started = time.perf_counter()
        self._encoded = self._started
        self._done = False

    def start(self, encoder: Encoder) -> None:
        """Raises HeddleError when the pod has too much to do already."""
        self._job = encoder.submit(self._plan.inputs, self._plan.options, self._on_encoded, name=self._plan.field)
        self._cancels.append(functools.partial(encoder.cancel, self._job))

    def cancel(self) -> None:
        if not self._done:
            self._done = True
            cancel_all(self._cancels)

    def _on_encoded(self, start: int, results: list[Result]) -> None:
        self._encoded = time.perf_counter()
        for index, result in enumerate(results, start):
            if self._done:
                return
            if isinstance(result, HeddleError):
                self._fail(result)
            else:
                self._send(index, result)

    def _send(self, index: int, sequence: TokenSequence) -> None:
        self._usage.tokens += sequence.tokens
        self._usage.truncated_inputs += sequence.truncated
        submission = self._plan.submission(sequence, self._context)
        self._cancels.append(self._engines(submission, self._deadline, functools.partial(self._on_outcome, index)))

    def _on_outcome(self, index: int, outcome: engine_pb2.Outcome | HeddleError) -> None:
        if self._done:
            return
        if isinstance(outcome, HeddleError):
            if outcome.kind in KINDS_OF_INPUT:
                outcome.field = f"{self._plan.field}[{index}]"
            self._fail(outcome)
            return
        self._outcomes[index] = outcome
        if len(self._outcomes) == len(self._plan.inputs):
            self._finish()

    def _fail(self, error: HeddleError) -> None:
        self.cancel()
        self._reply(error)

    def _finish(self) -> None:
        self._done = True
        outcomes = [self._outcomes[index] for index in range(len(self._outcomes))]
        timings = item_pb2.Timings(
            tokenize_us=microseconds(self._encoded - self._started),
            queue_us=max(outcome.queue_us for outcome in outcomes),
            compute_us=max(outcome.compute_us for outcome in outcomes),
            total_us=microseconds(time.perf_counter() - self._started),
        )
        self._reply(self._plan.assemble(outcomes, self._usage, timings))


def microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
