"""Parts of sequences, packed batches and what is taken from them, for sequences of any lengths and options."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from engine_svc.sequences import Options, Output, PackedBatch, Sequences
from tests.sequences import Sequence, columns, packed, sequences_of

IDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=12)
OPTIONS = [{}, {"prompt_tokens": 1}, {"dimensions": 4}, {"output": Output.TOKEN_VECTORS}]


@st.composite
def sequence(draw: st.DrawFn, *, with_options: bool = True) -> Sequence:
    ids = draw(IDS)
    types = bytes(index % 2 for index in range(len(ids))) if len(ids) > 1 and draw(st.booleans()) else b""
    options = draw(st.sampled_from(OPTIONS)) if with_options else {}
    return Sequence(np.array(ids, "<u4").tobytes(), types, **options)  # type: ignore[arg-type]


def sequences(*, with_options: bool = True) -> st.SearchStrategy[list[Sequence]]:
    return st.lists(sequence(with_options=with_options), min_size=1, max_size=10)


@given(sequences())
def test_a_packed_sequence_lies_between_its_bounds(them: list[Sequence]) -> None:
    batch = packed(them)
    assert sequences_of(batch) == them
    for start, stop in zip(batch.cu_seqlens, batch.cu_seqlens[1:], strict=False):
        assert batch.positions[start:stop].tolist() == list(range(stop - start))


@given(sequences())
def test_sizes_are_those_of_the_sequences(them: list[Sequence]) -> None:
    batch = packed(them)
    lengths = [one.tokens for one in them]
    assert len(batch) == len(them)
    assert (batch.tokens, batch.length_max, batch.lengths.tolist()) == (sum(lengths), max(lengths), lengths)
    arrays = (batch.token_ids, batch.type_ids, batch.positions)
    assert {(len(array), array.dtype) for array in arrays} == {(batch.tokens, np.dtype(np.int32))}
    assert batch.cu_seqlens.dtype == np.int32


@given(sequences(), st.data())
def test_taking_sequences_of_a_batch_makes_a_batch(them: list[Sequence], data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(them) - 1), min_size=1, max_size=12))
    assert sequences_of(packed(them).take(np.array(places))) == [them[place] for place in places]


@given(sequences(with_options=False), st.data())
def test_parts_and_taken_sequences_are_the_right_ones(them: list[Sequence], data: st.DataObject) -> None:
    whole = columns(*them)
    start = data.draw(st.integers(0, len(them) - 1))
    stop = data.draw(st.integers(start + 1, len(them)))
    places = data.draw(st.lists(st.integers(0, len(them) - 1), min_size=1, max_size=12))
    assert sequences_of(PackedBatch.of([whole.part(start, stop)])) == them[start:stop]
    assert sequences_of(PackedBatch.of([whole.take(np.array(places))])) == [them[place] for place in places]


@given(sequences())
def test_sequences_that_want_an_output_are_found(them: list[Sequence]) -> None:
    batch = packed(them)
    assert set(batch.output_indices) == {output for one in them for output in one.outputs}
    for output, places in batch.output_indices.items():
        assert places.tolist() == [place for place, one in enumerate(them) if output in one.outputs]


def test_options_are_compared_by_value() -> None:
    assert Options() == Options()
    variants = {Options(), Options(prompt_tokens=1), Options(dimensions=1), Options(skip_normalization=True)}
    assert len({*variants, Options(task="a"), Options(Output.LOGITS), Options(more_outputs=(Output.LOGITS,))}) == 7


def test_sequences_know_their_lengths() -> None:
    own = Sequences.of(np.arange(6, dtype=np.uint32), np.array([1, 3, 2]))
    assert (len(own), own.tokens, own.starts.tolist(), own.lengths.tolist()) == (3, 6, [0, 1, 4, 6], [1, 3, 2])
