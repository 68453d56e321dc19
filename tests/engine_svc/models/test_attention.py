"""Attention against the formula, pair of tokens by pair of tokens: packed batches of any lengths, and every pattern
among sequences of one length."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine_svc.models import attention
from engine_svc.models.attention import SHORT_TOKENS, attend, attend_each_by_matmul, attend_equal, softmax
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.prefixes import SharedPrefixes
from tests.engine_svc.models.layouts import make_layout, make_shared_layout

HEADS, HEAD_DIM, LONGEST = 4, 8, 400

ALL = AttentionPattern()
BIAS = torch.randn(HEADS, 2 * LONGEST - 1, generator=torch.Generator().manual_seed(1))


def attend_by_formula(query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
    """In float64, from the definition."""
    query, key, value = query.double(), key.double(), value.double()
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    length = query.shape[2]
    scores = query @ key.transpose(2, 3) * (pattern.scale or 1 / math.sqrt(HEAD_DIM))
    if pattern.softcap is not None:
        scores = pattern.softcap * (scores / pattern.softcap).tanh()
    distances = torch.arange(length)[None, :] - torch.arange(length)[:, None]  # of a key from a query
    if pattern.bias is not None:
        scores = scores + pattern.bias.double()[:, distances + LONGEST - 1]
    left = length if pattern.window_left is None else pattern.window_left
    right = length if pattern.window_right is None else pattern.window_right
    scores = scores.masked_fill((distances < -left) | (distances > right), -math.inf)
    return scores.softmax(-1) @ value


def attended_to(projections: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    query, key, value = projections
    return attend(query, key, value, make_layout(lengths), ALL)


def packed_by_formula(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int]) -> Tensor:
    parts = []
    for start, stop in itertools.pairwise([0, *itertools.accumulate(lengths)]):
        q, k, v = (tensor[None, start:stop].transpose(1, 2) for tensor in (query, key, value))
        parts.append(attend_by_formula(q, k, v, ALL)[0].transpose(0, 1))
    return torch.cat(parts).float()


def random_projections(rows: int) -> Sequence[Tensor]:
    """Strided, as one fused projection leaves them."""
    return torch.randn(rows, 3, HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(0)).unbind(1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_every_mix_of_lengths_in_any_order_equals_the_formula(lengths: list[int]) -> None:
    query, key, value = random_projections(sum(lengths))
    attended = attend(query, key, value, make_layout(lengths), ALL)
    torch.testing.assert_close(attended, packed_by_formula(query, key, value, lengths), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lengths", [[8] * 128, [1] * 100, [SHORT_TOKENS] * 3, [SHORT_TOKENS + 1] * 3])
def test_sequences_of_one_length_equal_the_formula(lengths: list[int]) -> None:
    query, key, value = random_projections(sum(lengths))
    attended = attend(query, key, value, make_layout(lengths), ALL)
    torch.testing.assert_close(attended, packed_by_formula(query, key, value, lengths), atol=1e-5, rtol=1e-4)


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
        attended[:12], packed_by_formula(query[:12], key[:12], value[:12], [3, 9]), atol=1e-5, rtol=1e-4
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
def test_shared_rows_are_attended_to_as_each_of_their_tokens(lengths: list[int], pattern: AttentionPattern) -> None:
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


def random_heads(sequences: int, length: int, num_kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(sequences, length, HEADS, HEAD_DIM, generator=generator)
    key, value = torch.randn(2, sequences, length, num_kv_heads, HEAD_DIM, generator=generator)
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


windows = st.one_of(st.none(), st.integers(0, 60))


@settings(max_examples=150, deadline=None)
@given(
    length=st.integers(1, 90) | st.just(LONGEST),
    num_kv_heads=st.sampled_from([1, 2, 4]),
    pattern=st.builds(
        AttentionPattern,
        window_left=windows,
        window_right=windows,
        scale=st.sampled_from([None, 0.1]),
        softcap=st.sampled_from([None, 2.0]),
        bias=st.sampled_from([None, BIAS]),
    ),
)
def test_any_pattern_equals_the_formula(length: int, num_kv_heads: int, pattern: AttentionPattern) -> None:
    query, key, value = random_heads(2, length, num_kv_heads)
    attended = attend_equal(query, key, value, pattern)
    torch.testing.assert_close(attended.double(), attend_by_formula(query, key, value, pattern), atol=1e-5, rtol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 90),
    share=st.floats(0, 1),
    pattern=st.builds(
        AttentionPattern, window_left=windows, window_right=windows, softcap=st.sampled_from([None, 2.0])
    ),
)
def test_fewer_queries_are_those_of_the_last_tokens(length: int, share: float, pattern: AttentionPattern) -> None:
    query, key, value = random_heads(2, length, 2)
    own = query[:, :, int(share * (length - 1)) :]
    attended = attend_equal(own, key, value, pattern)
    expected = attend_by_formula(query, key, value, pattern)[:, :, int(share * (length - 1)) :]
    torch.testing.assert_close(attended.double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "pattern", [AttentionPattern(window_left=9, window_right=9), AttentionPattern(softcap=2.0, window_right=0)]
)
def test_16_bit_types_stay_close_to_the_formula(pattern: AttentionPattern, dtype: torch.dtype) -> None:
    query, key, value = (heads.to(dtype) for heads in random_heads(2, 70, 2))
    attended = attend_equal(query, key, value, pattern)
    torch.testing.assert_close(attended.double(), attend_by_formula(query, key, value, pattern), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("num_kv_heads", [1, 4])
@pytest.mark.parametrize("length", [7, 130])
def test_matmul_in_bfloat16_stays_close_to_the_formula(length: int, num_kv_heads: int) -> None:
    query, key, value = (heads.bfloat16() for heads in random_heads(3, length, num_kv_heads))
    attended = attend_each_by_matmul(query, key, value, AttentionPattern(scale=0.3))
    assert attended.dtype == torch.bfloat16
    expected = attend_by_formula(query, key, value, AttentionPattern(scale=0.3))
    torch.testing.assert_close(attended.double(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("length", [1, 2, 7, 15, 16, 40])
def test_softmax_of_short_rows_is_the_softmax(length: int) -> None:
    scores = 40 * torch.randn(3, 5, length, length, generator=torch.Generator().manual_seed(2))
    scores[0, 0, 0, : length // 2] = -math.inf
    scores[1, 1, 0, 0] = 1e5
    torch.testing.assert_close(softmax(scores.clone()), scores.double().softmax(-1).float(), atol=1e-6, rtol=1e-5)


def test_nan_stays_in_its_row_of_the_softmax() -> None:
    scores = torch.zeros(4, 7)
    scores[2, 3] = math.nan
    assert softmax(scores).isnan().any(-1).tolist() == [False, False, True, False]


def test_too_long_a_sequence_is_not_attended_to_by_matmul(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "has_16_bit_products", lambda *_: True)
    monkeypatch.setattr(attention, "SCORES_MAX", HEADS * 300 * 300)
    heads = [heads.bfloat16() for heads in random_heads(1, LONGEST, 4)]
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        attend_equal(heads[0], heads[1], heads[2], AttentionPattern())
    assert largest.numbers < HEADS * LONGEST * LONGEST


def test_tiles_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    heads, pattern = random_heads(2, 200, 2), AttentionPattern(window_left=30, window_right=3, bias=BIAS)
    whole = attend_equal(*heads, pattern)
    monkeypatch.setattr(attention, "TILE_NUMBERS_MAX", 1)
    monkeypatch.setattr(attention, "TILE_QUERIES", range(7, 8))
    torch.testing.assert_close(attend_equal(*heads, pattern), whole, atol=1e-5, rtol=1e-4)


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """How many numbers the largest tensor had that any operation made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(made) if isinstance(leaf, Tensor) and leaf.is_contiguous()]
        self.numbers = max(self.numbers, *sizes, 0)
        return made


@pytest.mark.parametrize(
    ("sequences", "length", "numbers_max"),
    [
        (1, 8192, 1 << 22),  # all pairs of tokens would be 1 << 27
        (8, 512, HEADS * 256 * 512),  # of a tile of queries, the scores of all sequences would be 8 times as many
    ],
)
@torch.no_grad()  # unlike inference mode it shows what operations are made of
def test_biased_attention_holds_the_bias_of_a_tile_and_no_scores(sequences: int, length: int, numbers_max: int) -> None:
    heads = 2 if sequences == 1 else HEADS
    query, key, value = torch.randn(3, sequences, heads, length, HEAD_DIM).unbind()
    pattern = AttentionPattern(bias=torch.randn(heads, 2 * length - 1))
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        attend_equal(query, key, value, pattern)
    assert largest.numbers <= numbers_max
