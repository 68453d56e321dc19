"""Packed attention against the formula, sequence by sequence."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine_svc.models.attention import attend
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.dense_attention import SHORT_TOKENS
from engine_svc.models.layout import Layout
from engine_svc.models.prefixes import Merging
from tests.engine_svc.models.merged_layouts import merged_layout

HEADS, HEAD_DIM = 3, 8
CPU = torch.device("cpu")
ALL = AttentionPattern()


def layout_of(lengths: Sequence[int], device: torch.device = CPU) -> Layout:
    cu_seqlens = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=device)
    return Layout.of(lengths, cu_seqlens)


def attended_to(projections: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    query, key, value = projections
    return attend(query, key, value, layout_of(lengths), ALL)


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
    attended = attend(query, key, value, layout_of(lengths), ALL)
    torch.testing.assert_close(attended, by_formula(query, key, value, lengths), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lengths", [[8] * 128, [1] * 100, [SHORT_TOKENS] * 3, [SHORT_TOKENS + 1] * 3])
def test_sequences_of_one_length_equal_the_formula(lengths: list[int]) -> None:
    query, key, value = random_projections(sum(lengths))
    attended = attend(query, key, value, layout_of(lengths), ALL)
    torch.testing.assert_close(attended, by_formula(query, key, value, lengths), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 7, 15, SHORT_TOKENS, SHORT_TOKENS + 1, 33, 64])
def test_sequence_is_attended_to_alike_alone_and_in_any_batch(length: int) -> None:
    lengths = [3, *[length] * 5, 40]
    projections = random_projections(sum(lengths))
    together = attended_to(projections, lengths)
    for start in range(3, 3 + 5 * length, length):
        own = slice(start, start + length)
        alone = attended_to([tensor[own] for tensor in projections], [length])
        torch.testing.assert_close(alone, together[own], atol=1e-6, rtol=0)


def test_rows_behind_the_last_token_are_zero() -> None:
    query, key, value = random_projections(20)
    attended = attend(query, key, value, layout_of([3, 9]), ALL)
    assert not attended[12:].any()
    torch.testing.assert_close(
        attended[:12], by_formula(query[:12], key[:12], value[:12], [3, 9]), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(("length", "dtype"), [(40, torch.float32), (40, torch.bfloat16), (4, torch.float16)])
def test_overflow_stays_in_its_own_sequence(length: int, dtype: torch.dtype) -> None:
    query, key, value = (tensor.to(dtype) for tensor in random_projections(3 * length))
    value[:length] = float("nan")
    attended = attend(query, key, value, layout_of([length] * 3), ALL)
    assert attended[:length].isnan().all()
    assert attended[length:].isfinite().all()


@pytest.mark.parametrize("pattern", [AttentionPattern(ahead=0), AttentionPattern(ahead=0, behind=9, softcap=2.0)])
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
    layout = layout_of(lengths)
    merged = merged_layout(layout, Merging(row_of_token, token_of_row, np.array([length, 4, 0], np.int32)))
    tokens = attend(query[row_of_token], key[row_of_token], value[row_of_token], layout, pattern)
    torch.testing.assert_close(attend(query, key, value, merged, pattern), tokens[token_of_row], atol=1e-6, rtol=0)
