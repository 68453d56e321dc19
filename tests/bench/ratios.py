"""Percentiles of latencies, and ratios of turns that stand next to each other. Used by load, aims and report."""

import statistics
from collections.abc import Mapping, Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """Interpolated linearly, as numpy does; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def ratio_of_turns(ours: Mapping[int, float], theirs: Mapping[int, float]) -> float | None:
    """Geometric mean over the rounds that both have of ours / theirs; None if there is no such round.

    A machine changes its speed from minute to minute, and much less between two turns of one round: the ratio is taken
    within each round before anything is averaged."""
    ratios = [
        ours[turn] / theirs[turn] for turn in sorted(ours.keys() & theirs.keys()) if ours[turn] > 0 and theirs[turn] > 0
    ]
    return statistics.geometric_mean(ratios) if ratios else None
