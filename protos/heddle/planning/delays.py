"""How long something takes, as equally likely values: enough to add stages and to wait for the slowest of several.
Used by heddle.planning.queueing and capacity."""

from dataclasses import dataclass

import numpy as np

from heddle.planning.traffic import Floats

POINTS = 400
SHARES = (np.arange(POINTS) + 0.5) / POINTS


@dataclass(frozen=True, eq=False, slots=True)
class Delays:
    seconds: Floats  # POINTS of them, sorted

    @classmethod
    def weighted(cls, seconds: Floats, weights: Floats) -> "Delays":
        order = np.argsort(seconds)
        below = np.cumsum(weights[order])
        at = np.searchsorted(below, SHARES * below[-1])
        return cls(seconds[order][np.minimum(at, seconds.size - 1)])

    @classmethod
    def always(cls, seconds: float) -> "Delays":
        return cls(np.full(POINTS, seconds))

    @property
    def mean_s(self) -> float:
        return float(self.seconds.mean())

    def quantile_s(self, share: float) -> float:
        return float(np.interp(share, SHARES, self.seconds))

    def plus(self, other: "Delays") -> "Delays":
        """One after the other, independent of each other."""
        sums = np.sort(np.add.outer(self.seconds, other.seconds), axis=None)
        return Delays(sums[POINTS // 2 :: POINTS])

    def slowest_of(self, counts: Floats) -> "Delays":
        """Of a random number of independent ones, which is k with the probability counts[k]; of none it is none."""
        share_of_all = np.polynomial.polynomial.polyval(np.append(SHARES, 1.0), counts)
        return Delays(np.interp(SHARES * share_of_all[-1], share_of_all[:-1], self.seconds))
