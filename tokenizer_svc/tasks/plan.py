"""What a request comes down to that the engines compute: each task makes a plan, and `EngineRequest` carries it out."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from heddle.v1 import engine_pb2, inference_pb2, item_pb2, tensor_pb2
from tokenizer_svc.tasks.grouping import Group
from tokenizer_svc.text.inputs import INPUTS, FieldName, Input, Options
from tokenizer_svc.text.sequences import TokenSequences


def as_it_is(group: Group, outcome: engine_pb2.Outcome) -> engine_pb2.Outcome:
    """The `read` of a task that needs nothing but outcomes."""
    return outcome


# From what was read of each outcome, in the order of the groups, to the answer less its usage and timings.
Assemble = Callable[[Sequence[Any]], inference_pb2.InferenceOutcome]

Message_co = TypeVar("Message_co", covariant=True)


class Repeated(Protocol[Message_co]):
    """A repeated field of a message."""

    def add(self) -> Message_co: ...


def slots(repeated: Repeated[Message_co], count: int) -> list[Message_co]:
    """Elements to be filled in any order. Made in their answer, they need not be copied into it: a large one would be,
    all at once, twice."""
    return [repeated.add() for _ in range(count)]


def nothing(_: Any) -> int:
    return 0


class Plan(NamedTuple):
    """Sequences, what is wanted of each, and how their outcomes become the request's answer."""

    inputs: Sequence[Input]
    options: Options
    output: engine_pb2.Output
    assemble: Assemble
    # Called for each group of sequences as its outcome comes, so that a long answer is not made all at once.
    read: Callable[[Group, engine_pb2.Outcome], Any] = as_it_is
    # Bytes that sequences add to the answer: those that are known of their tokens before any work, and those that only
    # show in what was read.
    expected_bytes: Callable[[TokenSequences], int] = nothing
    read_bytes: Callable[[Any], int] = nothing
    field_of: FieldName = INPUTS
    # Options of the first input, if they differ from those of the others: a query beside documents.
    first_options: Options | None = None
    skip_normalization: bool = False
    dimensions: int = 0
    data_type: tensor_pb2.DataType = tensor_pb2.DATA_TYPE_FLOAT32
    more_outputs: Sequence[engine_pb2.Output] = ()  # computed in the same forward pass

    def options_of(self, index: int) -> Options:
        """Of the input of this index."""
        return self.options if index or self.first_options is None else self.first_options

    def submission(self, group: Group, context: item_pb2.ItemContext) -> engine_pb2.Submission:
        sequences = group.sequences
        submission = engine_pb2.Submission()
        submission.context.CopyFrom(context)
        wanted = submission.sequences  # filled where it is, at half of what it costs to make it and give it away
        wanted.token_ids = sequences.token_ids
        wanted.lengths = sequences.lengths.tobytes()
        wanted.type_ids = sequences.type_ids
        wanted.prompt_tokens = sequences.prompt_tokens[0]
        wanted.output = self.output
        wanted.task = self.options_of(group.start).task
        if self.more_outputs:
            wanted.more_outputs.extend(self.more_outputs)
        wanted.skip_normalization = self.skip_normalization
        wanted.dimensions = self.dimensions
        wanted.data_type = self.data_type
        return submission
