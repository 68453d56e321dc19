"""The first failed sequence of an outcome is found, and outcomes of another size are refused."""

from collections.abc import Callable

import numpy as np
import pytest

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2, tensor_pb2
from tokenizer_svc.tasks.outcomes import find_failure

FLOAT_TYPES = [tensor_pb2.DATA_TYPE_FLOAT32, tensor_pb2.DATA_TYPE_FLOAT16, tensor_pb2.DATA_TYPE_BFLOAT16]
LENGTHS = np.array([2, 0, 3])  # the second has no rows


def dense(outcome: engine_pb2.Outcome, bad: int | None = None, data_type: tensor_pb2.DataType = FLOAT_TYPES[0]) -> None:
    rows = np.ones((3, 4), np.float32)
    if bad is not None:
        rows[bad, 2] = np.inf
    tensors.fill(outcome.results.add().tensor, rows, data_type)


def tokens(
    outcome: engine_pb2.Outcome, bad: int | None = None, data_type: tensor_pb2.DataType = FLOAT_TYPES[0]
) -> None:
    rows = np.ones((5, 4), np.float32)
    if bad is not None:
        rows[LENGTHS[:bad].sum(), 3] = np.nan
    tensors.fill_tokens(outcome.results.add().tokens, rows, LENGTHS, data_type)


def sparse(
    outcome: engine_pb2.Outcome, bad: int | None = None, data_type: tensor_pb2.DataType = FLOAT_TYPES[0]
) -> None:
    values = np.ones(5, np.float32)
    if bad is not None:
        values[LENGTHS[:bad].sum()] = np.nan
    tensors.fill_sparse(outcome.results.add().sparse, LENGTHS, np.arange(5), values, 30)


@pytest.mark.parametrize("data_type", FLOAT_TYPES)
@pytest.mark.parametrize("bad", [0, 2])
@pytest.mark.parametrize("fill", [dense, tokens, sparse])
def test_the_first_sequence_with_nan_or_infinity_is_found(
    fill: Callable[..., None], bad: int, data_type: tensor_pb2.DataType
) -> None:
    outcome = engine_pb2.Outcome()
    fill(outcome, bad, data_type)
    failure = find_failure(outcome, 3, 1)
    assert failure is not None
    assert (failure.index, failure.error.kind) == (bad, ErrorKind.BAD_OUTPUT)


def test_the_smallest_index_of_all_outputs_counts() -> None:
    outcome = engine_pb2.Outcome()
    dense(outcome)
    sparse(outcome, bad=2)
    tokens(outcome, bad=0)
    failure = find_failure(outcome, 3, 3)
    assert failure is not None
    assert failure.index == 0


def test_outcomes_of_finite_numbers_and_of_integers_are_fine() -> None:
    for data_type in (*FLOAT_TYPES, tensor_pb2.DATA_TYPE_INT8, tensor_pb2.DATA_TYPE_UBINARY):
        outcome = engine_pb2.Outcome()
        dense(outcome, data_type=data_type)
        tokens(outcome, data_type=data_type)
        sparse(outcome)
        assert find_failure(outcome, 3, 3) is None


def test_errors_of_sequences_come_with_their_index() -> None:
    outcome = engine_pb2.Outcome()
    dense(outcome)
    for index in (1, 2):
        error = HeddleError(ErrorKind.TOO_LARGE, f"too long: {index}")
        outcome.errors.add(index=index, error=error.to_proto())
    failure = find_failure(outcome, 3, 1)
    assert failure is not None
    assert (failure.index, failure.error.message) == (1, "too long: 1")


@pytest.mark.parametrize(("sequences", "outputs"), [(2, 1), (4, 1), (3, 2), (3, 0)])
def test_an_outcome_of_another_size_is_an_error(sequences: int, outputs: int) -> None:
    outcome = engine_pb2.Outcome()
    dense(outcome)
    with pytest.raises(ValueError, match="outcome"):
        find_failure(outcome, sequences, outputs)
