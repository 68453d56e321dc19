"""Which sequences count as duplicates, and which batches warm a backend up."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from engine_svc.batch_runner import drop_duplicates, split, warm_up_batches
from engine_svc.batching import SchedulerLimits
from engine_svc.sequences import PackedBatch
from tests.sequences import Sequence, packed, sequences_of

# So few that many are equal.
SEQUENCES = st.lists(
    st.builds(
        lambda ids, types, dimensions: Sequence(
            np.array(ids, "<u4").tobytes(), bytes([1] * len(ids)) if types else b"", dimensions=dimensions
        ),
        st.lists(st.integers(0, 1), min_size=1, max_size=2),
        st.booleans(),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=40,
)


def keep_distinct(them: list[Sequence]) -> list[Sequence]:
    """The distinct sequences, after a check that each sequence is found among them."""
    batch, indices = drop_duplicates(packed(them))
    kept = sequences_of(batch)
    assert [kept[index] for index in (range(len(them)) if indices is None else indices)] == them
    return kept


@given(SEQUENCES)
def test_each_different_sequence_is_kept_once_in_order(them: list[Sequence]) -> None:
    assert keep_distinct(them) == list(dict.fromkeys(them))


@given(SEQUENCES)
def test_sequences_with_the_same_hash_are_not_mixed_up(them: list[Sequence]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackedBatch, "hash_sequences", lambda batch: np.zeros(len(batch), np.uint64))
        keep_distinct(them)


def test_sequences_differ_by_order_and_length() -> None:
    different = [Sequence(np.array(ids, "<u4").tobytes()) for ids in ([0], [0, 0], [0, 1], [1, 0], [2**31 - 1] * 2000)]
    assert keep_distinct(different) == different


def test_warm_up_goes_from_one_token_to_the_whole_budget() -> None:
    limits = SchedulerLimits(batch_tokens_max=2048, batch_items_max=64, queue_tokens_max=1, queue_items_max=1)
    batches = warm_up_batches(limits, sequence_tokens_max=256)
    assert batches[0] == [1]
    assert [256] * 8 in batches
    assert max(len(lengths) for lengths in batches) == 64
    assert all(sum(lengths) <= 2048 and max(lengths) <= 256 for lengths in batches)


def test_warm_up_has_no_batch_that_the_scheduler_would_not_form() -> None:
    limits = SchedulerLimits(batch_tokens_max=512, batch_items_max=1024, queue_tokens_max=1, queue_items_max=1)
    assert max(sum(lengths) for lengths in warm_up_batches(limits, sequence_tokens_max=256)) == 512


@pytest.mark.parametrize(("sequence_tokens_max", "tokens"), [(256, 16), (8, 8)])
def test_a_backend_that_compiles_shapes_warms_up_with_one_small_batch(sequence_tokens_max: int, tokens: int) -> None:
    limits = SchedulerLimits(batch_tokens_max=2048, batch_items_max=64, queue_tokens_max=1, queue_items_max=1)
    assert warm_up_batches(limits, sequence_tokens_max, compiles_shapes=True) == [[tokens]]


def test_split_parts_add_up() -> None:
    assert split(10, 4) == [4, 4, 2]
    assert split(8, 4) == [4, 4]
