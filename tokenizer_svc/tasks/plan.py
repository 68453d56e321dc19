"""The plans that tasks make of requests: `Plan` for requests that need an engine, `LocalPlan` for the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from heddle.v1 import engine_pb2, inference_pb2, item_pb2, tensor_pb2
from tokenizer_svc.tasks.grouping import Group
from tokenizer_svc.text.inputs import INPUTS, FieldName, Input, Options
from tokenizer_svc.text.sequences import TokenSequences


def keep_outcome(group: Group, outcome: engine_pb2.Outcome) -> engine_pb2.Outcome:
    """The default `read` of a plan."""
    return outcome


# Makes the answer, without usage and timings, of what was read of each outcome, in the order of the groups.
Assemble = Callable[[Sequence[Any]], inference_pb2.InferenceOutcome]

Message_co = TypeVar("Message_co", covariant=True)


class Repeated(Protocol[Message_co]):
    """A repeated field of a message."""

    def add(self) -> Message_co: ...


def add_empty(repeated: Repeated[Message_co], count: int) -> list[Message_co]:
    """Adds empty elements, which are filled in any order: inside the answer, so they need no copy."""
    return [repeated.add() for _ in range(count)]


def no_bytes(_: Any) -> int:
    return 0


class Plan(NamedTuple):
    """The inputs, the output to compute of each, and how outcomes become the answer. `EngineRequest` carries it out."""

    inputs: Sequence[Input]
    options: Options
    output: engine_pb2.Output
    assemble: Assemble
    # Called with each group's outcome when it comes, so that a long answer is not made all at once.
    read: Callable[[Group, engine_pb2.Outcome], Any] = keep_outcome
    # Bytes of the answer: those known from the tokens, before any work, and those known only once it was read.
    expected_bytes: Callable[[TokenSequences], int] = no_bytes
    read_bytes: Callable[[Any], int] = no_bytes
    field_of: FieldName = INPUTS
    # Options of the first input, if they differ: those of a query beside its documents.
    first_options: Options | None = None
    skip_normalization: bool = False
    dimensions: int = 0
    data_type: tensor_pb2.DataType = tensor_pb2.DATA_TYPE_FLOAT32
    more_outputs: Sequence[engine_pb2.Output] = ()  # computed in the same forward pass

    def submission(self, group: Group, context: item_pb2.ItemContext) -> engine_pb2.Submission:
        sequences = group.sequences
        options = self.options if group.start or self.first_options is None else self.first_options
        submission = engine_pb2.Submission()
        submission.context.CopyFrom(context)
        wanted = submission.sequences  # filled in place, at half the cost of making and copying it
        wanted.token_ids = sequences.token_ids
        wanted.lengths = sequences.lengths.tobytes()
        wanted.type_ids = sequences.type_ids
        wanted.prompt_tokens = sequences.prompt_tokens[0]
        wanted.output = self.output
        wanted.task = options.task
        if self.more_outputs:
            wanted.more_outputs.extend(self.more_outputs)
        wanted.skip_normalization = self.skip_normalization
        wanted.dimensions = self.dimensions
        wanted.data_type = self.data_type
        return submission


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """What to compute for each input, by index, and how the results become the answer. `answer_locally` does it."""

    sizes: Sequence[int]  # bytes of each input
    answer: Callable[[int], Any]  # called on the tokenizer's thread; raises HeddleError
    assemble: Callable[[Sequence[Any]], inference_pb2.InferenceOutcome]
    field_of: FieldName
