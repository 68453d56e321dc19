"""The order of scores in an answer. Used by the routes that score documents and labels."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt


def ranking_of(ranking: bytes, scores: npt.NDArray[np.float32]) -> list[int]:
    """Indices of the scores, best first. `ranking` is the tokenizer pod's, by logit, which also orders what rounds to
    the same score. A pod of an earlier version sends none; then equal scores keep the order of the input."""
    indices = np.frombuffer(ranking, "<u4") if ranking else np.argsort(-scores, kind="stable")
    order: list[int] = indices.tolist()
    return order


def rankings_of(ranking: bytes, table: npt.NDArray[np.float32]) -> Callable[[int], list[int]]:
    """`ranking_of` for a row of the table [inputs, labels]."""
    row_bytes = 4 * table.shape[1]
    return lambda row: ranking_of(ranking[row * row_bytes : (row + 1) * row_bytes], table[row])
