"""Finds what is wrong with the outcome of a submission. `gathering` asks before a task reads the outcome."""

from typing import NamedTuple

import numpy as np

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2


class Failure(NamedTuple):
    index: int  # of the sequence in its submission
    error: HeddleError


def first_failure(outcome: engine_pb2.Outcome, sequences: int, outputs: int) -> Failure | None:
    """The first sequence that the engine could not compute, or for which it sent NaN or infinity: JSON has neither, and
    `null` is no answer. Raises ValueError for an outcome that is not of so many sequences and outputs."""
    if len(outcome.results) != outputs or any(sequences_in(result) != sequences for result in outcome.results):
        raise ValueError(f"the engine's outcome is not one of {outputs} outputs of {sequences} sequences")
    if outcome.errors:
        return Failure(outcome.errors[0].index, HeddleError.from_proto(outcome.errors[0].error))
    bad = [index for result in outcome.results if (index := first_not_finite(result, sequences)) is not None]
    if not bad:
        return None
    return Failure(min(bad), HeddleError(ErrorKind.BAD_OUTPUT, "the engine sent NaN or infinity for this input"))


def sequences_in(result: engine_pb2.Result) -> int:
    match result.WhichOneof("result"):
        case "tensor":
            return result.tensor.shape[0] if result.tensor.shape else 0
        case "tokens":
            return len(result.tokens.lengths) // 4
        case _:
            return len(result.sparse.lengths) // 4


def first_not_finite(result: engine_pb2.Result, sequences: int) -> int | None:
    """The index of the first sequence with a number that is not finite."""
    match result.WhichOneof("result"):
        case "tensor":
            if tensors.is_finite(result.tensor):
                return None
            numbers = tensors.from_proto(result.tensor).ravel()
            lengths = np.full(sequences, numbers.size // sequences)
        case "tokens":
            if tensors.is_finite(result.tokens.tensor):
                return None
            numbers = tensors.from_proto(result.tokens.tensor).ravel()
            rows = result.tokens.tensor.shape[0]
            lengths = np.frombuffer(result.tokens.lengths, "<u4") * np.int64(numbers.size // rows)
        case _:
            numbers = np.frombuffer(result.sparse.values, "<f4")
            if tensors.are_finite(numbers):
                return None
            lengths = np.frombuffer(result.sparse.lengths, "<u4").astype(np.int64)
    first = np.flatnonzero(~np.isfinite(numbers))[0]
    return int(np.searchsorted(np.cumsum(lengths), first, side="right"))
