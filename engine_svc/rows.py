"""Results of many sequences: one matrix, or rows of each sequence laid end to end. Backends return `Rows`, the worker
splits and joins them, the servicer encodes them."""

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
    indices: Integers | None = None  # [entries]: places in the vocabulary, ascending in each sparse vector

    @property
    def sequences(self) -> int:
        return len(self.values if self.lengths is None else self.lengths)

    def part(self, start: int, stop: int) -> "Rows":
        """Those of some adjacent sequences, as views."""
        if start == 0 and stop == self.sequences:
            return self
        if self.lengths is None:
            return Rows(self.values[start:stop])
        first, last = int(self.lengths[:start].sum()), int(self.lengths[:stop].sum())
        indices = None if self.indices is None else self.indices[first:last]
        return Rows(self.values[first:last], self.lengths[start:stop], indices)

    def take(self, places: Integers) -> "Rows":
        """Those of the sequences at these places. A place of -1 gives zeros, or no rows where sequences have many."""
        missing = places < 0
        if self.lengths is None:
            values = self.values.take(places, 0, mode="clip")
            if missing.any():
                values[missing] = 0
            return Rows(values)
        lengths = np.where(missing, 0, self.lengths.take(places, mode="clip"))
        starts = np.cumsum(self.lengths) - self.lengths
        rows = ranges(starts.take(places, mode="clip"), lengths)
        return Rows(self.values[rows], lengths, None if self.indices is None else self.indices[rows])

    def find_bad(self) -> npt.NDArray[np.intp]:
        """The sequences with numbers that are NaN or infinite, ascending."""
        values = self.values
        # The sum of squares is NaN or infinite if any component is, at a quarter of what looking at each would cost.
        if math.isfinite(np.vdot(values, values)):
            return NONE
        finite = np.isfinite(values)
        bad = np.flatnonzero(~finite.all(axis=1) if values.ndim > 1 else ~finite)
        return bad if self.lengths is None else np.unique(np.searchsorted(np.cumsum(self.lengths), bad, side="right"))


def missing(sequences: int) -> Rows:
    """The rows of sequences of which none could be computed."""
    return Rows(np.zeros((sequences, 0), np.float32))


def join(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, one after the other."""
    if len(parts) == 1:
        return parts[0]
    known = [part for part in parts if part.lengths is not None or part.values.shape[1]]
    if not known:
        return missing(sum(part.sequences for part in parts))
    if len(known) < len(parts):  # all sequences of a part failed
        nothing = known[0].part(0, 1)
        parts = [
            part if any(part is one for one in known) else nothing.take(np.full(part.sequences, -1)) for part in parts
        ]
    first = parts[0]
    return Rows(
        np.concatenate([part.values for part in parts]),
        None if first.lengths is None else np.concatenate([part.lengths for part in parts if part.lengths is not None]),
        None if first.indices is None else np.concatenate([part.indices for part in parts if part.indices is not None]),
    )


def ranges(starts: Integers, lengths: Integers) -> npt.NDArray[np.int64]:
    """start, start + 1, ... for each start, so many as its length."""
    stops = np.cumsum(lengths, dtype=np.int64)
    total = int(stops[-1]) if len(stops) else 0
    return np.repeat(starts - stops + lengths, lengths) + np.arange(total)
