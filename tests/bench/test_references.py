"""Which answers are close enough to the reference for a server's figures to count."""

import numpy as np
import pytest

from tests.bench.references import WrongAnswerError, check_scores, check_vectors

VECTORS = np.random.default_rng(0).normal(size=(4, 384)).astype(np.float32)
SCORES = np.array([1e-7, 0.002, 0.3, 0.7, 0.999], np.float32)


def test_vectors_are_right_up_to_bfloat16s_rounding_and_whatever_their_length() -> None:
    check_vectors(2 * VECTORS * (1 + 2**-8), VECTORS, "a server")


def test_one_wrong_vector_among_many_is_found() -> None:
    wrong = VECTORS.copy()
    wrong[2] = VECTORS[1]
    with pytest.raises(WrongAnswerError, match="a server: a wrong vector"):
        check_vectors(wrong, VECTORS, "a server")
    with pytest.raises(WrongAnswerError):
        check_vectors(VECTORS[:3], VECTORS, "a server")
    with pytest.raises(WrongAnswerError):
        check_vectors(np.full_like(VECTORS, np.nan), VECTORS, "a server")


def test_scores_are_right_that_rank_alike_and_wrong_that_do_not() -> None:
    check_scores(np.array([2e-7, 0.004, 0.25, 0.75, 0.998], np.float32), SCORES, "a server")
    with pytest.raises(WrongAnswerError, match="correlation"):
        check_scores(SCORES[::-1], SCORES, "a server")
    with pytest.raises(WrongAnswerError):
        check_scores(np.full_like(SCORES, np.nan), SCORES, "a server")
