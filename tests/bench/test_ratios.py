"""Percentiles and ratios of turns equal numpy's and numbers worked out by hand."""

import numpy as np
import pytest

from tests.bench.ratios import percentile, ratio_of_turns


@pytest.mark.parametrize("count", [1, 2, 7, 100])
@pytest.mark.parametrize("percent", [0, 50, 90, 99, 100])
def test_percentiles_are_numpys(count: int, percent: float) -> None:
    values = list(np.random.default_rng(count).lognormal(0, 1, count))
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))


def test_the_percentile_of_nothing_is_zero() -> None:
    assert percentile([], 99) == 0


def test_a_ratio_is_taken_within_rounds_so_that_a_machine_that_slows_down_changes_nothing() -> None:
    ours, theirs = {0: 400.0, 1: 40.0}, {0: 100.0, 1: 10.0}
    assert ratio_of_turns(ours, theirs) == pytest.approx(4)


def test_rounds_that_only_one_has_do_not_count() -> None:
    assert ratio_of_turns({0: 4.0, 1: 100.0}, {0: 2.0}) == pytest.approx(2)
    assert ratio_of_turns({0: 4.0}, {1: 2.0}) is None
    assert ratio_of_turns({0: 4.0}, {0: 0.0}) is None
