"""Finds the sequences of a batch that are equal in all that is wanted of them. The worker computes them once."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine_svc.batch import PackedBatch

# Odd numbers, one for each position of a sequence: see `hashes_of`.
FIRST_WEIGHTS = 1024
ODD = np.uint64(0x9E3779B97F4A7C15)


class Distinct(NamedTuple):
    batch: PackedBatch  # without duplicates
    place_of: npt.NDArray[np.intp] | None  # of each sequence in that batch; None if there are no duplicates


def without_duplicates(batch: PackedBatch) -> Distinct:
    if len(batch) == 1:
        return Distinct(batch, None)
    hashes = hashes_of(batch) + batch.option_of.astype(np.uint64)
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]]) + 1
    if not len(again):
        return Distinct(batch, None)
    stands_for = np.arange(len(batch))
    for index in again.tolist():
        # The one before it in this order has been resolved already.
        one, other = order[index], stands_for[order[index - 1]]
        if are_equal(batch, one, other):
            stands_for[one] = other
    kept = np.flatnonzero(stands_for == np.arange(len(batch)))
    place_of = np.searchsorted(kept, stands_for)
    return Distinct(batch.take(kept), place_of)


def are_equal(batch: PackedBatch, one: int, other: int) -> bool:
    starts = batch.cu_seqlens
    own, others = slice(starts[one], starts[one + 1]), slice(starts[other], starts[other + 1])
    return (
        batch.option_of[one] == batch.option_of[other]
        and np.array_equal(batch.token_ids[own], batch.token_ids[others])
        and np.array_equal(batch.type_ids[own], batch.type_ids[others])
    )


def hashes_of(batch: PackedBatch) -> npt.NDArray[np.uint64]:
    """[B]: of the ids and types of each sequence. The sum of the ids, each times a number
    that depends on its position, modulo 2^64."""
    content = batch.token_ids.astype(np.uint64)
    content += batch.type_ids.astype(np.uint64) << np.uint64(32)
    content += np.uint64(1)  # so that the length counts, too
    content *= weights_of(batch.length_max)[batch.positions]
    hashes: npt.NDArray[np.uint64] = np.add.reduceat(content, batch.cu_seqlens[:-1])
    return hashes


_weights = np.zeros(0, np.uint64)


def weights_of(length: int) -> npt.NDArray[np.uint64]:
    global _weights  # noqa: PLW0603 - grows with the longest sequence so far; a race computes the same numbers
    weights = _weights
    if len(weights) < length:
        weights = mixed(np.arange(max(FIRST_WEIGHTS, 2 * length), dtype=np.uint64)) | np.uint64(1)
        _weights = weights
    return weights


def mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Numbers that look random: the finalizer of splitmix64."""
    numbers = (numbers + np.uint64(1)) * ODD
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
