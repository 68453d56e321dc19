"""Packed attention against the formula, sequence by sequence."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine_svc.models.attention import SHORT_TOKENS, attend
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.prefixes import SharedPrefixes
from tests.engine_svc.models.packed import make_layout, make_shared_layout

HEADS, HEAD_DIM = 3, 8
ALL = AttentionPattern()


def attended_to(projections: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    query, key, value = projections
    return attend(query, key, value, make_layout(lengths), ALL)


def by_formula(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int]) -> Tensor:
    parts = []
    for start, stop in itertools.pairwise([0, *itertools.accumulate(lengths)]):
        q, k, v = (tensor[start:stop].transpose(0, 1) for tensor in (query, key, value))
        weights = (q @ k.transpose(1, 2) / HEAD_DIM**0.5).softmax(-1)
        parts.append((weights @ v).transpose(0, 1))
    return torch.cat(parts)


def random_projections(rows: int) -> Sequence[Tensor]:
    """Strided, as one fused projection leaves them."""
    return torch.randn(rows, 3, HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(0)).unbind(1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_every_mix_of_lengths_in_any_order_equals_the_formula(lengths: list[int]) -> None:
    query, key, value = random_projections(sum(lengths))
    attended = attend(query, key, value, make_layout(lengths), ALL)
    torch.testing.assert_close(attended, by_formula(query, key, value, lengths), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lengths", [[8] * 128, [1] * 100, [SHORT_TOKENS] * 3, [SHORT_TOKENS + 1] * 3])
def test_sequences_of_one_length_equal_the_formula(lengths: list[int]) -> None:
    query, key, value = random_projections(sum(lengths))
    attended = attend(query, key, value, make_layout(lengths), ALL)
    torch.testing.assert_close(attended, by_formula(query, key, value, lengths), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 7, 15, SHORT_TOKENS, SHORT_TOKENS + 1, 33, 64])
def test_sequence_has_the_same_result_alone_and_in_any_batch(length: int) -> None:
    lengths = [3, *[length] * 5, 40]
    projections = random_projections(sum(lengths))
    together = attended_to(projections, lengths)
    for start in range(3, 3 + 5 * length, length):
        own = slice(start, start + length)
        alone = attended_to([tensor[own] for tensor in projections], [length])
        torch.testing.assert_close(alone, together[own], atol=1e-6, rtol=0)


def test_rows_after_the_last_token_are_zero() -> None:
    query, key, value = random_projections(20)
    attended = attend(query, key, value, make_layout([3, 9]), ALL)
    assert not attended[12:].any()
    torch.testing.assert_close(
        attended[:12], by_formula(query[:12], key[:12], value[:12], [3, 9]), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(("length", "dtype"), [(40, torch.float32), (40, torch.bfloat16), (4, torch.float16)])
def test_overflow_stays_in_its_own_sequence(length: int, dtype: torch.dtype) -> None:
    query, key, value = (tensor.to(dtype) for tensor in random_projections(3 * length))
    value[:length] = float("nan")
    attended = attend(query, key, value, make_layout([length] * 3), ALL)
    assert attended[:length].isnan().all()
    assert attended[length:].isfinite().all()


@pytest.mark.parametrize(
    "pattern", [AttentionPattern(window_right=0), AttentionPattern(window_right=0, window_left=9, softcap=2.0)]
)
@pytest.mark.parametrize("lengths", [[20, 20, 20], [14, 14, 14]])
def test_rows_that_stand_for_several_tokens_are_attended_to_as_those_tokens(
    lengths: list[int], pattern: AttentionPattern
) -> None:
    """Three sequences that share all but the last four tokens; the third is equal to the second."""
    length = lengths[0]
    shared, others = length - 4, range(length, length + 4)
    query, key, value = random_projections(length + 4)
    row_of_token = np.array([*range(length), *range(shared), *others, *range(shared), *others])
    token_of_row = np.array([*range(length), *range(length + shared, 2 * length)])
    layout = make_layout(lengths)
    shared_layout = make_shared_layout(
        layout, SharedPrefixes(row_of_token, token_of_row, np.array([length, 4, 0], np.int32))
    )
    tokens = attend(query[row_of_token], key[row_of_token], value[row_of_token], layout, pattern)
    torch.testing.assert_close(
        attend(query, key, value, shared_layout, pattern), tokens[token_of_row], atol=1e-6, rtol=0
    )
