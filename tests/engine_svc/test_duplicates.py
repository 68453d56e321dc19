"""Equal sequences are found, whatever is wanted of them, and only equal ones."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from engine_svc import duplicates
from engine_svc.duplicates import without_duplicates
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


def check(them: list[Sequence]) -> None:
    distinct = without_duplicates(packed(them))
    kept = sequences_of(distinct.batch)
    assert len(kept) == len(set(them))
    places = range(len(them)) if distinct.place_of is None else distinct.place_of
    assert [kept[place] for place in places] == them


@given(SEQUENCES)
def test_each_different_sequence_is_kept_once_and_found_by_all_that_equal_it(them: list[Sequence]) -> None:
    check(them)


@given(SEQUENCES)
def test_sequences_with_the_same_hash_are_not_mixed_up(them: list[Sequence]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "hashes_of", lambda batch: np.zeros(len(batch), np.uint64))
        distinct = without_duplicates(packed(them))
    kept = sequences_of(distinct.batch)
    places = range(len(them)) if distinct.place_of is None else distinct.place_of
    assert [kept[place] for place in places] == them


def test_order_and_length_count() -> None:
    check([Sequence(np.array(ids, "<u4").tobytes()) for ids in ([0], [0, 0], [0, 1], [1, 0], [2**31 - 1] * 2000)])
