"""Attention inside each sequence of a packed batch, without padding.

On CUDA one flash kernel takes the whole batch by its `cu_seqlens`. Elsewhere, and for what that kernel cannot do,
adjacent sequences of equal length are a plain [sequences, length] view of the packed tokens and run as one call. A
batch sorted by length has the fewest calls. Sequences never meet in a product or a sum: a NaN stays at home, and alone
or in any batch the results agree to the last bits of float32.
"""

import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.dense_attention import attend_densely
from engine_svc.models.prefixes import SharedPrefixes

FLASH_DTYPES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent sequences of equal length."""

    start: int  # first token
    sequences: int
    length: int  # tokens of each

    @property
    def stop(self) -> int:
        return self.start + self.sequences * self.length


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the sequences of a packed batch lie. The same for all layers, so computed once per batch."""

    cu_seqlens: Tensor  # int32 [B + 1], on the device
    length_max: int
    runs: tuple[Run, ...]  # in the order of the tokens
    prefixes: SharedPrefixes | None = None  # where rows stand for several tokens

    @classmethod
    def of(cls, lengths: Sequence[int], cu_seqlens: Tensor, prefixes: SharedPrefixes | None = None) -> "Layout":
        """`lengths` [B] are at least 1; `cu_seqlens` is theirs, on the device that computes."""
        return cls(cu_seqlens, max(lengths), tuple(runs_of(lengths)), prefixes)


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
    """Softmax attention of each token to those of its own sequence that the pattern lets it see.

    `query` is [rows, heads, head_dim], `key` and `value` are [rows, key heads, head_dim], strided or not; the result is
    as `query`, contiguous. On the CPU, rows behind the last token of the layout are 0 in the result.
    """
    if layout.prefixes is not None:
        query, key, value = (layout.prefixes.to_tokens(rows) for rows in (query, key, value))
    attends = attend_by_flash if uses_flash(query, pattern) else attend_by_runs
    result = attends(query, key, value, layout, pattern)
    return result if layout.prefixes is None else layout.prefixes.to_rows(result)


def attend_by_flash(query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    cu_seqlens, length_max = layout.cu_seqlens, layout.length_max
    result = varlen_attn(
        *(query, key, value, cu_seqlens, cu_seqlens, length_max, length_max),
        scale=pattern.scale,
        window_size=(-1 if pattern.behind is None else pattern.behind, -1 if pattern.ahead is None else pattern.ahead),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(result, Tensor)  # a tuple only if more was asked for
    return result


def attend_by_runs(query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
    result = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    for run in layout.runs:
        attended = attend_densely(sequences_of(query, run), sequences_of(key, run), sequences_of(value, run), pattern)
        sequences_of(result, run).copy_(attended)
    result[layout.runs[-1].stop :] = 0
    return result


def sequences_of(tokens: Tensor, run: Run) -> Tensor:
    """View [sequences, heads, length, head_dim] of a run's tokens."""
    return tokens[run.start : run.stop].view(run.sequences, run.length, *tokens.shape[1:]).transpose(1, 2)


def runs_of(lengths: Sequence[int]) -> list[Run]:
    runs: list[Run] = []
    start = 0
    for length, equal in itertools.groupby(lengths):
        runs.append(Run(start, sum(1 for _ in equal), length))
        start = runs[-1].stop
    return runs


def uses_flash(query: Tensor, pattern: AttentionPattern) -> bool:
    """What the kernel can do: bfloat16 and float16, heads of a multiple of 8 up to 256, from Ampere on."""
    if pattern.bias is not None or pattern.softcap is not None:
        return False
    head_dim = query.shape[-1]
    can_kernel = query.dtype in FLASH_DTYPES and head_dim % 8 == 0 and head_dim <= 256
    return can_kernel and query.is_cuda and has_flash(query.device)


@cache
def has_flash(device: torch.device) -> bool:
    """PyTorch has the kernel's public name from 2.10 on."""
    in_torch = importlib.util.find_spec("torch.nn.attention.varlen") is not None
    return in_torch and torch.cuda.get_device_capability(device) >= (8, 0)
