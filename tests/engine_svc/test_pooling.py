"""Pooling against a plain loop over sequences, and against sentence-transformers' own module."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Pooling as PoolingModule
from torch import Tensor

from engine_svc.pooling import Prompts, finish, pool
from heddle.checkpoint.sentence_modules import POOLING_BY_MODE, Pooling

LENGTHS = [1, 2, 7, 31, 3]
HIDDEN = 16


@pytest.fixture
def hidden() -> Tensor:
    return torch.randn(sum(LENGTHS), HIDDEN, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def cu_seqlens() -> Tensor:
    return torch.tensor([0, *itertools.accumulate(LENGTHS)], dtype=torch.int32)


def make_prompts(tokens: Sequence[int], lengths: Sequence[int]) -> Prompts:
    left = sum(max(0, length - own) for own, length in zip(tokens, lengths, strict=True))
    return Prompts(torch.tensor(tokens, dtype=torch.int32), left)


def of_sentence_transformers(mode: str, hidden: Tensor, cu_seqlens: Tensor, prompt_tokens: int) -> Tensor:
    module = PoolingModule(HIDDEN, mode, include_prompt=False)
    vectors = []
    for start, stop in itertools.pairwise(cu_seqlens.tolist()):
        features = {
            "token_embeddings": hidden[None, start:stop],
            "attention_mask": torch.ones(1, stop - start, dtype=torch.int64),
            "prompt_length": prompt_tokens,
        }
        vectors.append(module(features)["sentence_embedding"])
    return torch.cat(vectors)


@pytest.mark.parametrize("mode", POOLING_BY_MODE)
def test_every_mode_equals_sentence_transformers(mode: str, hidden: Tensor, cu_seqlens: Tensor) -> None:
    pooled = pool(hidden, cu_seqlens, [POOLING_BY_MODE[mode]])
    torch.testing.assert_close(pooled, of_sentence_transformers(mode, hidden, cu_seqlens, 0))


@pytest.mark.parametrize("mode", POOLING_BY_MODE)
def test_prompt_tokens_are_excluded_as_in_sentence_transformers(mode: str, cu_seqlens: Tensor) -> None:
    lengths = [5, 4, 19]
    hidden = torch.randn(sum(lengths), HIDDEN, generator=torch.Generator().manual_seed(1))
    cu_seqlens = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    pooled = pool(hidden, cu_seqlens, [POOLING_BY_MODE[mode]], make_prompts([3] * len(lengths), lengths))
    torch.testing.assert_close(pooled, of_sentence_transformers(mode, hidden, cu_seqlens, 3))


def test_sequences_may_have_prompts_of_different_lengths(hidden: Tensor, cu_seqlens: Tensor) -> None:
    prompts = [0, 1, 5, 0, 2]
    pooled = pool(hidden, cu_seqlens, [Pooling.MEAN], make_prompts(prompts, LENGTHS))
    for index, (start, stop) in enumerate(itertools.pairwise(cu_seqlens.tolist())):
        torch.testing.assert_close(pooled[index], hidden[start + prompts[index] : stop].mean(0))


@pytest.mark.parametrize("mode", Pooling)
@pytest.mark.parametrize("prompt_tokens", [2, 9])
def test_a_sequence_that_is_all_prompt_stays_finite(mode: Pooling, prompt_tokens: int) -> None:
    hidden, cu_seqlens = torch.randn(5, HIDDEN), torch.tensor([0, 2, 5], dtype=torch.int32)
    pooled = pool(hidden, cu_seqlens, [mode], make_prompts([prompt_tokens, 0], [2, 3]))
    alone = pool(hidden[2:], cu_seqlens[[0, 2]] - torch.tensor([0, 2]).int(), [mode])
    assert pooled[0].isfinite().all()
    torch.testing.assert_close(pooled[1:], alone)


def test_several_modes_are_concatenated_in_their_order(hidden: Tensor, cu_seqlens: Tensor) -> None:
    pooled = pool(hidden, cu_seqlens, [Pooling.LAST_TOKEN, Pooling.CLS])
    assert pooled.shape == (len(LENGTHS), 2 * HIDDEN)
    torch.testing.assert_close(pooled[:, HIDDEN:], hidden[cu_seqlens[:-1]])
    torch.testing.assert_close(pooled[:, :HIDDEN], hidden[cu_seqlens[1:] - 1])


@pytest.mark.parametrize("mode", Pooling)
def test_prompts_of_no_tokens_change_nothing(mode: Pooling, hidden: Tensor, cu_seqlens: Tensor) -> None:
    none = make_prompts([0] * len(LENGTHS), LENGTHS)
    assert torch.equal(pool(hidden, cu_seqlens, [mode], none), pool(hidden, cu_seqlens, [mode]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_are_float32_whatever_the_model_computes_in(dtype: torch.dtype) -> None:
    """In bfloat16 a sum of ones stops at 256, in float16 at 2048."""
    hidden = torch.ones(4_000, HIDDEN, dtype=dtype)
    cu_seqlens = torch.tensor([0, 4_000], dtype=torch.int32)
    pooled = pool(hidden, cu_seqlens, [Pooling.MEAN])
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, torch.ones(1, HIDDEN))


def test_vectors_are_truncated_before_they_are_normalised() -> None:
    vectors = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(2))
    finished = finish(vectors, torch.tensor([0, 4, 4]).int(), torch.tensor([False, False, True]))
    torch.testing.assert_close(finished[0], vectors[0] / vectors[0].norm())
    torch.testing.assert_close(finished[1, :4], vectors[1, :4] / vectors[1, :4].norm())
    torch.testing.assert_close(finished[2, :4], vectors[2, :4])
    assert not finished[1:, 4:].any()


def test_nan_stays_in_its_own_vector(hidden: Tensor, cu_seqlens: Tensor) -> None:
    hidden[0] = float("nan")
    pooled = pool(hidden, cu_seqlens, [Pooling.MEAN])
    finished = finish(pooled)
    assert finished[0].isnan().any()
    assert finished[1:].isfinite().all()
