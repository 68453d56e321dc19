"""Distributions of whole numbers: what is computed with is what is drawn."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from heddle.planning.traffic import WholeNumbers

NUMBERS = st.builds(WholeNumbers, st.floats(1, 100), st.one_of(st.just(0.0), st.floats(0.1, 3)), st.integers(100, 600))


@given(NUMBERS)
def test_probabilities_are_those_of_numbers_from_1_to_most(numbers: WholeNumbers) -> None:
    assert numbers.probabilities.shape == (numbers.most + 1,)
    assert numbers.probabilities.min() >= 0
    assert numbers.probabilities[0] == 0
    assert numbers.probabilities.sum() == pytest.approx(1)


@given(NUMBERS)
def test_drawn_numbers_have_the_average_that_is_computed_with(numbers: WholeNumbers) -> None:
    drawn = numbers.draw(np.random.default_rng(0), 20_000)
    assert 1 <= drawn.min() <= drawn.max() <= numbers.most
    assert drawn.mean() == pytest.approx(numbers.average, abs=5 * (numbers.variance / 20_000) ** 0.5 + 1e-9)


@given(st.floats(1, 100))
def test_without_spread_the_mean_is_kept_exactly(mean: float) -> None:
    assert WholeNumbers(mean, 0, 101).average == pytest.approx(mean)


def test_log_normal_parameters_and_mean_with_spread_say_the_same() -> None:
    by_median = WholeNumbers.log_normal(64, 0.7, 512)
    assert by_median.quantile(0.5) == 64
    by_mean = WholeNumbers(by_median.mean, by_median.spread, 512)
    np.testing.assert_allclose(by_mean.probabilities, by_median.probabilities)


def test_longer_texts_count_as_the_longest() -> None:
    cut = WholeNumbers(300, 1, 512)
    assert cut.average < 300
    assert cut.probabilities[512] > 0.1


def test_what_no_distribution_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no distribution from 1 to 256 has the mean 300"):
        WholeNumbers(300, 0.5, 256)
