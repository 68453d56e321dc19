"""Checks the outcome of a submission. `engine_request` calls it before a task reads the outcome."""

from dataclasses import dataclass

import numpy as np

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2


@dataclass(frozen=True, slots=True)
class Failure:
    index: int  # of the sequence in its submission
    error: HeddleError


def find_failure(outcome: engine_pb2.Outcome, sequences: int, outputs: int) -> Failure | None:
    """Finds the first sequence that failed, or whose result has NaN or infinity: JSON has neither, and `null` is no
    answer. Raises ValueError for an outcome with other numbers of sequences or outputs."""
    if outcome.errors:
        first = outcome.errors[0]  # they are sorted by index
        return Failure(first.index, HeddleError.from_proto(first.error))
    if len(outcome.results) != outputs:
        raise ValueError(f"the engine's outcome does not have {outputs} outputs")
    bad = sequences
    for result in outcome.results:
        bad = min(bad, find_not_finite(result, sequences))
    if bad == sequences:
        return None
    return Failure(bad, HeddleError(ErrorKind.BAD_OUTPUT, "the engine sent NaN or infinity for this input"))


def find_not_finite(result: engine_pb2.Result, sequences: int) -> int:
    """The index of the first sequence with NaN or infinity, or `sequences` if there is none. Raises ValueError for a
    result of another number of sequences."""
    kind = result.WhichOneof("result")
    if kind == "tensor":
        tensor = result.tensor
        found = tensor.shape[0]
        is_finite = tensors.is_finite(tensor)
    elif kind == "tokens":
        tensor, found = result.tokens.tensor, len(result.tokens.lengths) // 4
        is_finite = tensors.is_finite(tensor)
    else:
        values, found = np.frombuffer(result.sparse.values, "<f4"), len(result.sparse.lengths) // 4
        is_finite = tensors.are_finite(values)
    if found != sequences:
        raise ValueError(f"the engine's outcome has {found} sequences instead of {sequences}")
    if is_finite:
        return sequences
    if kind == "tensor":
        return find_bad_row(tensors.from_proto(tensor), np.ones(sequences, np.int64))
    if kind == "tokens":
        return find_bad_row(tensors.from_proto(tensor), np.frombuffer(result.tokens.lengths, "<u4"))
    return find_bad_row(values, np.frombuffer(result.sparse.lengths, "<u4"))


def find_bad_row(rows: tensors.Floats, lengths: tensors.Counts) -> int:
    """The sequence of the first row with NaN or infinity; `lengths` are the numbers of rows."""
    first = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))[0]
    return int(np.searchsorted(np.cumsum(lengths, dtype=np.int64), first, side="right"))
