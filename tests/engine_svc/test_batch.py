"""Packing: sequences end to end, whatever their lengths, and back again."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from engine_svc.batch import PackedBatch, Sequence


def sequences() -> st.SearchStrategy[list[Sequence]]:
    ids = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=12)
    return st.lists(st.builds(sequence_of, ids, st.booleans()), min_size=1, max_size=10)


def sequence_of(ids: list[int], has_types: bool) -> Sequence:
    types = bytes(index % 2 for index in range(len(ids))) if has_types else b""
    return Sequence(np.array(ids, "<u4").tobytes(), types)


@given(sequences())
def test_each_sequence_is_found_again_between_its_bounds(packed: list[Sequence]) -> None:
    batch = PackedBatch.of(packed)
    assert batch.cu_seqlens[0] == 0
    for index, sequence in enumerate(packed):
        own = slice(batch.cu_seqlens[index], batch.cu_seqlens[index + 1])
        assert batch.token_ids[own].astype("<u4").tobytes() == sequence.token_ids
        assert batch.type_ids[own].tolist() == list(sequence.type_ids or bytes(sequence.tokens))
        assert batch.positions[own].tolist() == list(range(sequence.tokens))


@given(sequences())
def test_sizes_are_those_of_the_sequences(packed: list[Sequence]) -> None:
    batch = PackedBatch.of(packed)
    lengths = [sequence.tokens for sequence in packed]
    assert (batch.tokens, batch.length_max, batch.lengths.tolist()) == (sum(lengths), max(lengths), lengths)
    columns = (batch.token_ids, batch.type_ids, batch.positions)
    assert {(len(column), column.dtype) for column in columns} == {(batch.tokens, np.dtype(np.int32))}
    assert batch.cu_seqlens.dtype == np.int32


def test_sequences_are_equal_by_what_is_asked_of_them() -> None:
    ids = np.array([1, 2], "<u4").tobytes()
    assert Sequence(ids) == Sequence(bytes(ids))
    variants = {
        Sequence(ids),
        Sequence(ids, bytes([0, 1])),
        Sequence(ids, prompt_tokens=1),
        Sequence(ids, dimensions=1),
    }
    assert len({*variants, Sequence(ids, skip_normalization=True)}) == 5
