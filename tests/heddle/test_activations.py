"""Sigmoid and softmax are those of transformers."""

from typing import Any

import numpy as np
import pytest
from transformers.pipelines import text_classification

from heddle.activations import sigmoid, softmax

OURS_TO_THEIRS: list[tuple[Any, Any]] = [
    (sigmoid, text_classification.sigmoid),
    (softmax, text_classification.softmax),
]
LOGITS = np.random.default_rng(1).normal(0, 4, (50, 7)).astype(np.float32)


@pytest.mark.parametrize(("ours", "theirs"), OURS_TO_THEIRS)
def test_sigmoid_and_softmax_are_those_of_transformers(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours(LOGITS), theirs(LOGITS), rtol=1e-6)


def test_large_logits_do_not_overflow() -> None:
    extreme = np.array([[1e4, -1e4, 0.0]], np.float32)
    np.testing.assert_array_equal(sigmoid(extreme), [[1.0, 0.0, 0.5]])
    np.testing.assert_array_equal(softmax(extreme), [[1.0, 0.0, 0.0]])
