"""The simulated backend: vectors that depend only on their sequence, after the modelled time."""

import time

import numpy as np
import pytest

from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.sequences import Output
from tests.engine_svc.submissions import sequence
from tests.sequences import Sequence, packed, run_each

QUICK = SimulatedBackend(fixed_us=0, per_token_ns=0)


def test_a_sequence_has_the_same_vector_alone_and_in_any_batch() -> None:
    sequences = [sequence(length) for length in (1, 5, 3, 9)]
    together = run_each(QUICK, packed(sequences))
    for one, array in zip(sequences, together, strict=True):
        assert np.array_equal(run_each(QUICK, packed([one]))[0], array)
    assert len({array.tobytes() for array in together}) == 4


def test_vectors_are_normalised_and_cut_as_asked() -> None:
    ids = sequence(4).token_ids
    whole, cut, raw = run_each(
        QUICK, packed([Sequence(ids), Sequence(ids, dimensions=8), Sequence(ids, skip_normalization=True)])
    )
    assert (whole.shape, cut.shape) == ((384,), (8,))
    assert np.linalg.norm(whole) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(cut) == pytest.approx(1, abs=1e-5)
    assert np.allclose(cut, raw[:8] / np.linalg.norm(raw[:8]), atol=1e-6)


def test_token_vectors_have_a_row_per_token() -> None:
    [array] = run_each(QUICK, packed([Sequence(sequence(4).token_ids, output=Output.TOKEN_VECTORS)]))
    assert array.shape == (4, 384)


def simulating(output: Output, dimension: int) -> SimulatedBackend:
    return SimulatedBackend(outputs=frozenset({output}), dimension=dimension, fixed_us=0, per_token_ns=0)


def test_logits_have_a_component_per_label() -> None:
    wanted = [Sequence(sequence(4).token_ids, output=output) for output in (Output.LOGITS, Output.TOKEN_LOGITS)]
    logits, token_logits = (run_each(simulating(one.output, 9), packed([one]))[0] for one in wanted)
    assert (logits.shape, token_logits.shape) == ((9,), (4, 9))


def test_sparse_vectors_have_few_positive_weights_that_depend_on_the_sequence_alone() -> None:
    sparse = simulating(Output.SPARSE_VECTOR, 30522)
    wanted = [Sequence(sequence(length).token_ids, output=Output.SPARSE_VECTOR) for length in (1, 4, 200)]
    vectors = run_each(sparse, packed(wanted))
    for one, vector in zip(wanted, vectors, strict=True):
        indices, weights = vector
        assert 0 < len(indices) <= 24
        assert (np.diff(indices) > 0).all()
        assert indices[-1] < 30522
        assert (weights > 0).all()
        assert np.array_equal(run_each(sparse, [one])[0], vector)
    assert len({vector.tobytes() for vector in vectors}) == 3


def test_an_output_that_is_not_simulated_is_refused() -> None:
    with pytest.raises(ValueError, match="LOGITS"):
        run_each(QUICK, packed([Sequence(sequence(4).token_ids, output=Output.LOGITS)]))


def test_a_batch_takes_at_least_its_modelled_time() -> None:
    backend = SimulatedBackend(fixed_us=20_000, per_token_ns=1_000_000)
    began = time.monotonic()
    run_each(backend, packed([sequence(10), sequence(20)]))
    assert time.monotonic() - began >= 0.05
