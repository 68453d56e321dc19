"""Rows of many sequences: parts, joins and values that are not finite, compared with lists of arrays."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from engine_svc.rows import Rows, join, missing

KINDS = ("matrix", "tokens", "sparse")


def made(kind: str, lengths: list[int], seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    if kind == "matrix":
        return Rows(rng.random((len(lengths), 3), np.float32))
    counts = np.array(lengths)
    if kind == "tokens":
        return Rows(rng.random((sum(lengths), 3), np.float32), counts)
    return Rows(rng.random(sum(lengths), np.float32), counts, np.arange(sum(lengths)))


def listed(rows: Rows) -> list[object]:
    if rows.lengths is None:
        return rows.values.tolist()  # type: ignore[no-any-return]
    stops = np.cumsum(rows.lengths)
    bounds = list(zip((stops - rows.lengths).tolist(), stops.tolist(), strict=True))
    indices = rows.values[:, :0] if rows.indices is None else rows.indices
    return [(rows.values[start:stop].tolist(), indices[start:stop].tolist()) for start, stop in bounds]


LENGTHS = st.lists(st.integers(0, 4), min_size=1, max_size=9)


@given(st.sampled_from(KINDS), LENGTHS, st.data())
def test_parts_and_taken_rows_are_the_right_ones(kind: str, lengths: list[int], data: st.DataObject) -> None:
    rows = made(kind, lengths)
    start = data.draw(st.integers(0, len(lengths)))
    stop = data.draw(st.integers(start, len(lengths)))
    places = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=12))
    assert listed(rows.part(start, stop)) == listed(rows)[start:stop]
    assert listed(rows.take(np.array(places))) == [listed(rows)[place] for place in places]


@given(st.sampled_from(KINDS), LENGTHS, LENGTHS)
def test_joined_rows_keep_their_order(kind: str, lengths: list[int], others: list[int]) -> None:
    first, second = made(kind, lengths), made(kind, others, seed=1)
    assert listed(join([first, second])) == listed(first) + listed(second)


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_without_results_have_zeros_or_no_rows(kind: str) -> None:
    rows = made(kind, [1, 2])
    scattered = rows.scatter(np.array([0, 2]), 4)
    assert scattered.sequences == 4
    assert listed(scattered)[::2] == listed(rows)
    assert not scattered.take(np.array([1, 3])).values.any()
    assert scattered.lengths is None or scattered.lengths.tolist() == [1, 0, 2, 0]
    joined = join([missing(2), rows, missing(1)])
    assert joined.sequences == 5
    assert listed(joined)[2:4] == listed(rows)
    assert not joined.part(0, 2).values.any()
    assert join([missing(2), missing(1)]).sequences == 3


@given(st.sampled_from(KINDS), LENGTHS, st.data())
def test_a_value_that_is_not_finite_is_found(kind: str, lengths: list[int], data: st.DataObject) -> None:
    rows = made(kind, lengths)
    rows.values[...] *= np.float32(1e30)  # whose squares overflow
    assert not rows.find_not_finite().size
    if not rows.values.size:
        return
    row = data.draw(st.integers(0, len(rows.values) - 1))
    rows.values[row] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    sequence = row if rows.lengths is None else int(np.searchsorted(np.cumsum(rows.lengths), row, side="right"))
    assert rows.find_not_finite().tolist() == [sequence]
