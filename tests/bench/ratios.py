"""Percentiles of latencies, and ratios of neighbouring turns. `load`, `aims` and `report` use them."""

import statistics
from collections.abc import Mapping, Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """Interpolates linearly, like numpy; 0 for no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def ratio_of_turns(ours: Mapping[int, float], theirs: Mapping[int, float]) -> float | None:
    """Returns the geometric mean of ours / theirs over the rounds that both have; None if there is no such round.

    The ratio is taken within each round before averaging, because a machine's speed changes from minute to minute, and
    much less between two turns of one round.
    """
    ratios = [
        ours[turn] / theirs[turn] for turn in sorted(ours.keys() & theirs.keys()) if ours[turn] > 0 and theirs[turn] > 0
    ]
    return statistics.geometric_mean(ratios) if ratios else None
