"""Cosines hold for vectors of any length, and of none."""

import numpy as np
import pytest
from sentence_transformers.util import cos_sim

from tokenizer_svc.tasks.scores import cosines


@pytest.mark.parametrize("length", [1e-20, 1.0, 1e15])
def test_cosines_are_those_of_sentence_transformers(length: float) -> None:
    rng = np.random.default_rng(2)
    one, many = rng.normal(size=384), rng.normal(size=(20, 384))
    found = cosines((one * length).astype(np.float32), (many * length).astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, cos_sim(one, many)[0].numpy(), atol=1e-6)


def test_a_vector_without_a_direction_is_like_no_other() -> None:
    rows = np.array([[0.0, 0.0], [1.0, 0.0]], np.float32)
    np.testing.assert_array_equal(cosines(rows[1], rows), [0.0, 1.0])
    np.testing.assert_array_equal(cosines(rows[0], rows), [0.0, 0.0])


def test_the_cosine_of_a_vector_with_itself_is_one_and_no_more() -> None:
    rows = np.random.default_rng(3).normal(size=(200, 33)).astype(np.float32)
    assert all(cosines(row, row[None])[0] == 1.0 for row in rows)
