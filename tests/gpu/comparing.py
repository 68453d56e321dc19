"""Compares outputs with the expected ones. NaN and infinity count as the worst possible error."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]


def relative_error(ours: Sequence[Array], theirs: Sequence[Array]) -> float:
    """|ours - theirs| / |theirs| over all arrays; infinite for a NaN or another shape."""
    if any(one.shape != other.shape for one, other in zip(ours, theirs, strict=True)):
        return math.inf
    own, other = flat(ours), flat(theirs)
    error = float(np.linalg.norm(own - other) / np.linalg.norm(other))
    return error if math.isfinite(error) else math.inf


def least_cosine(ours: Sequence[Array], theirs: Sequence[Array]) -> float:
    """The smallest cosine of a row. Logits, which are few per sequence, are compared as one vector; -1 for a NaN."""
    if any(one.shape != other.shape for one, other in zip(ours, theirs, strict=True)):
        return -1.0
    if all(array.ndim == 1 and array.size < 32 for array in theirs):
        return cosine(flat(ours), flat(theirs))
    pairs = zip(ours, theirs, strict=True)
    return min(
        cosine(row, other)
        for one, two in pairs
        for row, other in zip(np.atleast_2d(one), np.atleast_2d(two), strict=True)
    )


def cosine(one: Array, two: Array) -> float:
    first, second = one.astype(np.float64), two.astype(np.float64)
    value = float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
    return value if math.isfinite(value) else -1.0


def flat(arrays: Sequence[Array]) -> Array:
    return np.concatenate([array.ravel() for array in arrays]).astype(np.float64)
