"""Arrivals of an open loop are in order, at their rate, and as irregular as a Poisson process."""

import statistics
from itertools import pairwise

import pytest

from tests.bench.arrivals import poisson_arrivals


def test_arrivals_come_in_order_at_the_rate_asked_for_and_within_the_time() -> None:
    arrivals = poisson_arrivals(per_second=100, seconds=100, seed=1)
    assert len(arrivals) == pytest.approx(10_000, rel=0.05)
    assert arrivals == sorted(arrivals)
    assert arrivals[0] > 0
    assert arrivals[-1] < 100


def test_gaps_vary_as_much_as_they_last_which_makes_it_a_poisson_process() -> None:
    gaps = [after - before for before, after in pairwise(poisson_arrivals(per_second=100, seconds=100, seed=2))]
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.05)


def test_the_same_seed_gives_the_same_arrivals() -> None:
    assert poisson_arrivals(10, 10, seed=3) == poisson_arrivals(10, 10, seed=3)
    assert poisson_arrivals(10, 10, seed=3) != poisson_arrivals(10, 10, seed=4)
