"""Encodes the outcome of a submission as a message. A worker calls it on its own thread, the servicer when nothing is
computed."""

import numpy as np

from engine_svc.checks import Checked
from engine_svc.rows import Rows, missing
from engine_svc.submission import Outcome
from heddle import tensors
from heddle.rpc.errors import HeddleError
from heddle.v1 import engine_pb2, tensor_pb2


def encode(checked: Checked, vocabulary_size: int, outcome: Outcome) -> engine_pb2.Outcome | HeddleError:
    if outcome.error is not None:
        return HeddleError.from_exception(outcome.error)
    message = engine_pb2.Outcome(queue_us=int(outcome.queue_s * 1e6), compute_us=int(outcome.compute_s * 1e6))
    results, errors = outcome.results, outcome.errors
    if checked.errors:
        results = [rows.take(checked.place_of) for rows in results]
        good = np.flatnonzero(checked.place_of >= 0).tolist()
        errors = sorted([*checked.errors, *((good[index], error) for index, error in errors)], key=lambda each: each[0])
    for rows in results:
        fill(message.results.add(), rows, checked.data_type, vocabulary_size)
    for index, error in errors:
        message.errors.add(index=index, error=HeddleError.from_exception(error).to_proto())
    return message


def nothing_computed(checked: Checked) -> engine_pb2.Outcome:
    """For a submission whose sequences are all bad."""
    message = engine_pb2.Outcome()
    for _ in checked.options.outputs:
        fill(message.results.add(), missing(len(checked.errors)), checked.data_type, 0)
    for index, error in checked.errors:
        message.errors.add(index=index, error=error.to_proto())
    return message


def fill(result: engine_pb2.Result, rows: Rows, data_type: tensor_pb2.DataType, vocabulary_size: int) -> None:
    if rows.lengths is None:
        tensors.fill(result.tensor, rows.values, data_type)
    elif rows.indices is None:
        tensors.fill_tokens(result.tokens, rows.values, rows.lengths, data_type)
    else:
        tensors.fill_sparse(result.sparse, rows.lengths, rows.indices, rows.values, vocabulary_size)
