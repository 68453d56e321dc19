"""Checks what a caller sends against the model, and reads it into `Sequences`. The servicer calls it.

An error of the whole submission is raised. An error of one sequence is kept for that sequence, and the others run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from engine_svc.sequences import Options, Output, Sequences
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2, model_pb2, tensor_pb2

UINT32 = np.dtype("<u4")

# Callers choose the options, such as `dimensions`, so there may be any number of them.
OPTIONS_CACHED_MAX = 1024

ALL_DATA_TYPES = frozenset(tensor_pb2.DataType.values())
FLOATS = frozenset(
    {
        tensor_pb2.DATA_TYPE_UNSPECIFIED,
        tensor_pb2.DATA_TYPE_FLOAT32,
        tensor_pb2.DATA_TYPE_FLOAT16,
        tensor_pb2.DATA_TYPE_BFLOAT16,
    }
)
# heddle.v1.SparseTensors has values in one data type only.
DATA_TYPES = {
    Output.VECTOR: ALL_DATA_TYPES,
    Output.TOKEN_VECTORS: ALL_DATA_TYPES,
    Output.SPARSE_VECTOR: frozenset({tensor_pb2.DATA_TYPE_UNSPECIFIED, tensor_pb2.DATA_TYPE_FLOAT32}),
    Output.LOGITS: FLOATS,
    Output.TOKEN_LOGITS: FLOATS,
    Output.COLBERT_VECTORS: ALL_DATA_TYPES,
}
# The outputs on which a field has an effect.
OUTPUTS_OF_FIELD = {
    "dimensions": frozenset({Output.VECTOR}),
    "skip_normalization": frozenset({Output.VECTOR, Output.COLBERT_VECTORS}),
}


@dataclass(slots=True)
class CheckedSequences:
    sequences: Sequences  # without those that have errors
    data_type: tensor_pb2.DataType  # of the outcome
    errors: Sequence[tuple[int, HeddleError]] = ()  # index of a sequence in the message, and its error; ascending
    good: npt.NDArray[np.intp] | None = None  # indices in the message of the other sequences; None = all


class Checks:
    def __init__(self, model: model_pb2.Model, outputs: frozenset[Output], sequences_max: int) -> None:
        """A submission may hold at most `sequences_max` sequences."""
        self._model = model
        self._sequences_max = sequences_max
        self._outputs = {output.value: output for output in outputs}
        if outputs:
            self._outputs[engine_pb2.OUTPUT_UNSPECIFIED] = min(outputs, key=lambda output: output.value)
        self._cached_options = lru_cache(OPTIONS_CACHED_MAX)(self._check_options)

    def check(self, message: engine_pb2.Sequences) -> CheckedSequences:
        """Raises HeddleError for a submission that cannot be read, or that asks for what the model does not have."""
        options = self._cached_options(
            message.output,
            tuple(message.more_outputs),
            message.prompt_tokens,
            message.skip_normalization,
            message.dimensions,
            message.task,
            message.data_type,
        )
        sequences = self._read(message, options)
        errors = self._find_errors(sequences)
        data_type = message.data_type or tensor_pb2.DATA_TYPE_FLOAT32
        if not errors:
            return CheckedSequences(sequences, data_type)
        good = np.delete(np.arange(len(sequences)), list(errors))
        return CheckedSequences(sequences.take(good), data_type, sorted(errors.items()), good)

    def _read(self, message: engine_pb2.Sequences, options: Options) -> Sequences:
        packed_ids, packed_lengths, packed_types = message.token_ids, message.lengths, message.type_ids
        for name, packed in (("token_ids", packed_ids), ("lengths", packed_lengths)):
            if len(packed) % UINT32.itemsize:
                raise invalid_input(f"{name} must be uint32: its size must be a multiple of 4 bytes", name)
        count = len(packed_lengths) // UINT32.itemsize
        if not count:
            raise HeddleError(ErrorKind.EMPTY_INPUT, "a submission needs at least one sequence", field="lengths")
        if count > self._sequences_max:
            text = f"a submission of {count} sequences is too large: the engine's queue holds {self._sequences_max}"
            raise HeddleError(ErrorKind.TOO_LARGE, text, field="lengths")
        token_ids = np.frombuffer(packed_ids, UINT32)
        type_ids = np.frombuffer(packed_types, np.uint8) if packed_types else None
        sequences = Sequences.of(token_ids, np.frombuffer(packed_lengths, UINT32), type_ids, options)
        if sequences.tokens != len(token_ids):
            text = f"lengths add up to {sequences.tokens} tokens, but token_ids has {len(token_ids)}"
            raise invalid_input(text, "lengths")
        if type_ids is not None and len(type_ids) != len(token_ids):
            raise invalid_input("type_ids must be empty or have one byte per token", "type_ids")
        if type_ids is not None and not (self._model.uses_type_ids or type_ids.max() > 1):
            return Sequences(token_ids, sequences.starts, None, options)
        return sequences

    def _find_errors(self, sequences: Sequences) -> dict[int, HeddleError]:
        """The sequences that the model cannot run, and why."""
        model, token_ids, type_ids = self._model, sequences.token_ids, sequences.type_ids
        errors: dict[int, HeddleError] = {}
        lengths = sequences.lengths
        # item(argmax()) takes half the time of max().
        if token_ids.size and token_ids.item(token_ids.argmax()) >= model.vocabulary_size:
            for token in np.flatnonzero(token_ids >= model.vocabulary_size)[::-1].tolist():
                text = f"token id {token_ids[token]} is outside the vocabulary of {model.vocabulary_size}"
                errors[find_sequence(sequences, token)] = invalid_input(text, "token_ids")
        if type_ids is not None and type_ids.size and type_ids.item(type_ids.argmax()) > 1:
            for token in np.flatnonzero(type_ids > 1).tolist():
                error = invalid_input("a type id must be 0 or 1", "type_ids")
                errors.setdefault(find_sequence(sequences, token), error)
        if lengths.item(lengths.argmax()) > model.sequence_tokens_max:
            for index in np.flatnonzero(lengths > model.sequence_tokens_max).tolist():
                text = f"a sequence of {lengths[index]} tokens is longer than the model's {model.sequence_tokens_max}"
                errors[index] = HeddleError(ErrorKind.TOO_LARGE, text, field="token_ids")
        if not lengths.item(lengths.argmin()):
            for index in np.flatnonzero(lengths == 0).tolist():
                text = "a sequence needs at least one token"
                errors[index] = HeddleError(ErrorKind.EMPTY_INPUT, text, field="token_ids")
        return errors

    def _check_options(  # noqa: PLR0917 - lru_cache takes them by position
        self,
        output_number: int,
        more_numbers: tuple[int, ...],
        prompt_tokens: int,
        skip_normalization: bool,
        dimensions: int,
        task: str,
        data_type: int,
    ) -> Options:
        model, output = self._model, self._find_output(output_number)
        more = tuple(self._find_output(number) for number in more_numbers)
        if len({output, *more}) <= len(more):
            raise invalid_input("more_outputs names an output twice, or names `output` again", "more_outputs")
        if dimensions > model.dimension:
            raise invalid_input(f"dimensions must be at most {model.dimension}", "dimensions")
        if task and task not in model.tasks:
            raise invalid_input(f"there is no task {task!r} (there are: {', '.join(model.tasks) or 'none'})", "task")
        options = Options(output, more, prompt_tokens, skip_normalization, dimensions, task)
        check_fields(options, data_type)
        return options

    def _find_output(self, number: int) -> Output:
        output = self._outputs.get(number)
        if output is not None:
            return output
        kind = model_pb2.ModelKind.Name(self._model.kind).removeprefix("MODEL_KIND_").replace("_", " ").lower()
        raise HeddleError(ErrorKind.WRONG_TASK, f"{self._model.name} is a model of another kind: {kind}")


def check_fields(options: Options, data_type: int) -> None:
    """Raises INVALID_INPUT for fields that would be ignored, so that no caller believes that they had an effect."""
    outputs = options.outputs
    names = " and ".join(output.name.lower().replace("_", " ") for output in outputs)
    for field_name, takers in OUTPUTS_OF_FIELD.items():
        if getattr(options, field_name) and takers.isdisjoint(outputs):
            raise invalid_input(f"{field_name} has no effect on the output {names}", field_name)
    if data_type not in ALL_DATA_TYPES:
        raise invalid_input(f"there is no data type {data_type}", "data_type")
    if not any(data_type in DATA_TYPES[output] for output in outputs):
        name = tensor_pb2.DataType.Name(data_type).removeprefix("DATA_TYPE_").lower()
        raise invalid_input(f"the output {names} cannot have the data type {name}", "data_type")


def find_sequence(sequences: Sequences, token: int) -> int:
    """The index of the sequence that has the token."""
    return int(sequences.starts.searchsorted(token, side="right")) - 1


def invalid_input(message: str, field_name: str) -> HeddleError:
    return HeddleError(ErrorKind.INVALID_INPUT, message, field=field_name)
