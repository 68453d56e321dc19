"""Results of many sequences, as one array per output. Backends return `Rows`, the worker splits and joins them, and the
servicer encodes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.integer]

NONE = np.zeros(0, np.intp)


@dataclass(frozen=True, slots=True)
class Rows:
    """One output of n sequences."""

    values: Floats  # [rows, width], or [entries] of sparse vectors
    lengths: Integers | None = None  # [n]: rows or entries of each sequence; None = one row each
    indices: Integers | None = None  # [entries]: indices into the vocabulary, ascending in each sparse vector

    @property
    def sequences(self) -> int:
        return len(self.values if self.lengths is None else self.lengths)

    def part(self, start: int, stop: int) -> "Rows":
        """The rows of adjacent sequences, as views."""
        if self.lengths is None:
            return Rows(self.values[start:stop])
        first, last = int(self.lengths[:start].sum()), int(self.lengths[:stop].sum())
        indices = None if self.indices is None else self.indices[first:last]
        return Rows(self.values[first:last], self.lengths[start:stop], indices)

    def take(self, sequences: Integers) -> "Rows":
        """The rows of the sequences at these indices, in that order."""
        if self.lengths is None:
            return Rows(self.values[sequences])
        starts = np.cumsum(self.lengths) - self.lengths
        lengths = self.lengths[sequences]
        rows = ranges(starts[sequences], lengths)
        return Rows(self.values[rows], lengths, None if self.indices is None else self.indices[rows])

    def scatter(self, sequences: Integers, total: int) -> "Rows":
        """Moves the rows to these ascending indices among `total` sequences. The others get a row of zeros, or no rows
        where a sequence has several."""
        if self.lengths is None:
            values = np.zeros((total, *self.values.shape[1:]), np.float32)
            values[sequences] = self.values
            return Rows(values)
        lengths = np.zeros(total, self.lengths.dtype)
        lengths[sequences] = self.lengths
        return Rows(self.values, lengths, self.indices)

    def find_not_finite(self) -> npt.NDArray[np.intp]:
        """The indices of sequences with values that are NaN or infinite, ascending."""
        values = self.values
        # The sum of squares is NaN or infinite if any value is. It costs a quarter of testing each value.
        if math.isfinite(np.vdot(values, values)):
            return NONE
        finite = np.isfinite(values)
        rows = np.flatnonzero(~finite.all(axis=1) if values.ndim > 1 else ~finite)
        return rows if self.lengths is None else np.unique(np.searchsorted(np.cumsum(self.lengths), rows, side="right"))


def missing(sequences: int) -> Rows:
    """The rows of sequences that all failed."""
    return Rows(np.zeros((sequences, 0), np.float32))


def join(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    model = next((part for part in parts if part.lengths is not None or part.values.shape[1]), parts[0])
    nothing = model.part(0, 0)
    parts = [
        part if part.values.shape[1:] == model.values.shape[1:] else nothing.scatter(NONE, part.sequences)
        for part in parts
    ]
    return Rows(
        np.concatenate([part.values for part in parts]),
        None if model.lengths is None else np.concatenate([part.lengths for part in parts if part.lengths is not None]),
        None if model.indices is None else np.concatenate([part.indices for part in parts if part.indices is not None]),
    )


def ranges(starts: Integers, lengths: Integers) -> npt.NDArray[np.int64]:
    """start, start + 1, ... for each start, as many numbers as its length."""
    stops = np.cumsum(lengths, dtype=np.int64)
    total = int(stops[-1]) if len(stops) else 0
    return np.repeat(starts - stops + lengths, lengths) + np.arange(total)
