"""Checks what a caller sends against the model, and turns it into what the scheduler takes. The servicer calls it.

What is wrong with a whole submission is raised. What is wrong with one of its sequences is the error of that sequence.
"""

from collections.abc import Sequence as List
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine_svc.batch import Options, Output, Sequences
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2, model_pb2, tensor_pb2

UINT32 = np.dtype("<u4")
NO_PLACES = np.zeros(0, np.intp)

# Callers choose the options, such as `dimensions`.
OPTIONS_KEPT_MAX = 1024

DATA_TYPES = frozenset(tensor_pb2.DataType.values())
FLOATS = frozenset(
    {
        tensor_pb2.DATA_TYPE_UNSPECIFIED,
        tensor_pb2.DATA_TYPE_FLOAT32,
        tensor_pb2.DATA_TYPE_FLOAT16,
        tensor_pb2.DATA_TYPE_BFLOAT16,
    }
)
# Vectors come in all of them, logits as floats, and SparseTensors has one.
DATA_TYPES_OF = {
    Output.VECTOR: DATA_TYPES,
    Output.TOKEN_VECTORS: DATA_TYPES,
    Output.SPARSE_VECTOR: frozenset({tensor_pb2.DATA_TYPE_UNSPECIFIED, tensor_pb2.DATA_TYPE_FLOAT32}),
    Output.LOGITS: FLOATS,
    Output.TOKEN_LOGITS: FLOATS,
    Output.COLBERT_VECTORS: DATA_TYPES,
}
# The outputs for which a field has a meaning.
OUTPUTS_OF_FIELD = {
    "dimensions": frozenset({Output.VECTOR}),
    "skip_normalization": frozenset({Output.VECTOR, Output.COLBERT_VECTORS}),
}


class Wanted(NamedTuple):
    """The fields of a message that say what is wanted."""

    output: int
    more_outputs: tuple[int, ...]
    prompt_tokens: int
    skip_normalization: bool
    dimensions: int
    task: str
    data_type: int


@dataclass(frozen=True, slots=True)
class Checked:
    sequences: Sequences | None  # without the bad ones; None if all are bad
    options: Options
    data_type: tensor_pb2.DataType
    errors: List[tuple[int, HeddleError]] = ()  # of bad sequences, ascending
    place_of: npt.NDArray[np.intp] = field(default_factory=lambda: NO_PLACES)  # with errors: -1 for a bad sequence


class Checks:
    def __init__(self, model: model_pb2.Model, outputs: frozenset[Output]) -> None:
        self._model = model
        self._outputs = {output.value: output for output in outputs}
        if outputs:
            self._outputs[engine_pb2.OUTPUT_UNSPECIFIED] = min(outputs, key=lambda output: output.value)
        self._options = lru_cache(OPTIONS_KEPT_MAX)(self._check_options)

    def check(self, message: engine_pb2.Sequences) -> Checked:
        """Raises HeddleError for a submission that cannot be read, or asks for what the model does not have."""
        data_type = message.data_type
        options = self._options(
            Wanted(
                message.output,
                tuple(message.more_outputs),
                message.prompt_tokens,
                message.skip_normalization,
                message.dimensions,
                message.task,
                data_type,
            )
        )
        sequences = self._read(message, options)
        errors = self._find_bad(sequences)
        data_type = data_type or tensor_pb2.DATA_TYPE_FLOAT32
        if not errors:
            return Checked(sequences, options, data_type)
        place_of = np.zeros(len(sequences), np.intp)
        place_of[list(errors)] = -1
        good = np.flatnonzero(place_of == 0)
        place_of[good] = np.arange(len(good))
        return Checked(
            sequences.take(good) if len(good) else None, options, data_type, sorted(errors.items()), place_of
        )

    def _read(self, message: engine_pb2.Sequences, options: Options) -> Sequences:
        packed_ids, packed_lengths, packed_types = message.token_ids, message.lengths, message.type_ids
        for name, packed in (("token_ids", packed_ids), ("lengths", packed_lengths)):
            if len(packed) % UINT32.itemsize:
                raise invalid(f"{name} must be uint32: its size must be a multiple of 4 bytes", name)
        if not packed_lengths:
            raise HeddleError(ErrorKind.EMPTY_INPUT, "a submission needs at least one sequence", field="lengths")
        token_ids = np.frombuffer(packed_ids, UINT32)
        type_ids = np.frombuffer(packed_types, np.uint8) if packed_types else None
        sequences = Sequences.of(token_ids, np.frombuffer(packed_lengths, UINT32), type_ids, options)
        if sequences.tokens != len(token_ids):
            raise invalid(f"lengths add up to {sequences.tokens} tokens, token_ids has {len(token_ids)}", "lengths")
        if type_ids is not None and len(type_ids) != len(token_ids):
            raise invalid("type_ids must be empty or one byte per token", "type_ids")
        if type_ids is not None and not (self._model.uses_type_ids or type_ids.max() > 1):
            return Sequences(token_ids, sequences.starts, None, options)
        return sequences

    def _find_bad(self, sequences: Sequences) -> dict[int, HeddleError]:
        """The sequences that the model cannot run, and why."""
        model, token_ids, type_ids = self._model, sequences.token_ids, sequences.type_ids
        errors: dict[int, HeddleError] = {}
        lengths = sequences.lengths
        # item(argmax()) takes half the time of max().
        if token_ids.size and token_ids.item(token_ids.argmax()) >= model.vocabulary_size:
            for token in np.flatnonzero(token_ids >= model.vocabulary_size)[::-1].tolist():
                text = f"token id {token_ids[token]} is outside the vocabulary of {model.vocabulary_size}"
                errors[sequence_of(sequences, token)] = invalid(text, "token_ids")
        if type_ids is not None and type_ids.size and type_ids.item(type_ids.argmax()) > 1:
            for token in np.flatnonzero(type_ids > 1).tolist():
                errors.setdefault(sequence_of(sequences, token), invalid("a type id must be 0 or 1", "type_ids"))
        if lengths.item(lengths.argmax()) > model.sequence_tokens_max:
            for index in np.flatnonzero(lengths > model.sequence_tokens_max).tolist():
                text = f"a sequence of {lengths[index]} tokens is longer than the model's {model.sequence_tokens_max}"
                errors[index] = HeddleError(ErrorKind.TOO_LARGE, text, field="token_ids")
        if not lengths.item(lengths.argmin()):
            for index in np.flatnonzero(lengths == 0).tolist():
                text = "a sequence needs at least one token"
                errors[index] = HeddleError(ErrorKind.EMPTY_INPUT, text, field="token_ids")
        return errors

    def _check_options(self, wanted: Wanted) -> Options:
        model, output = self._model, self._output(wanted.output)
        more = tuple(self._output(number) for number in wanted.more_outputs)
        if len({output, *more}) <= len(more):
            raise invalid("more_outputs names an output twice, or names `output` again", "more_outputs")
        if wanted.dimensions > model.dimension:
            raise invalid(f"dimensions must be at most {model.dimension}", "dimensions")
        task = wanted.task
        if task and task not in model.tasks:
            raise invalid(f"there is no task {task!r} (there are: {', '.join(model.tasks) or 'none'})", "task")
        options = Options(output, more, wanted.prompt_tokens, wanted.skip_normalization, wanted.dimensions, task)
        check_fields(options, wanted.data_type)
        return options

    def _output(self, wanted: int) -> Output:
        output = self._outputs.get(wanted)
        if output is not None:
            return output
        kind = model_pb2.ModelKind.Name(self._model.kind).removeprefix("MODEL_KIND_").replace("_", " ").lower()
        raise HeddleError(ErrorKind.WRONG_TASK, f"{self._model.name} is a model of another kind: {kind}")


def check_fields(options: Options, data_type: int) -> None:
    """Raises INVALID_INPUT for fields that would be ignored, so that no caller believes that they had an effect."""
    outputs = options.outputs
    for field_name, takers in OUTPUTS_OF_FIELD.items():
        if getattr(options, field_name) and takers.isdisjoint(outputs):
            raise invalid(f"{field_name} has no effect on the output {names_of(outputs)}", field_name)
    if data_type not in DATA_TYPES:
        raise invalid(f"there is no data type {data_type}", "data_type")
    if not any(data_type in DATA_TYPES_OF[output] for output in outputs):
        name = tensor_pb2.DataType.Name(data_type).removeprefix("DATA_TYPE_").lower()
        raise invalid(f"the output {names_of(outputs)} cannot have the data type {name}", "data_type")


def sequence_of(sequences: Sequences, token: int) -> int:
    return int(sequences.starts.searchsorted(token, side="right")) - 1


def names_of(outputs: tuple[Output, ...]) -> str:
    """Names for an error message, such as `token vectors and logits`."""
    return " and ".join(output.name.lower().replace("_", " ") for output in outputs)


def invalid(message: str, field_name: str) -> HeddleError:
    return HeddleError(ErrorKind.INVALID_INPUT, message, field=field_name)
