"""Attention inside each sequence of a packed batch, without padding.

On CUDA one flash kernel takes the whole batch by its `cu_seqlens`. Elsewhere, and for what that kernel cannot do,
adjacent sequences of equal length are a plain [sequences, length] view of the packed tokens and run as one call. A
batch sorted by length has the fewest calls. Sequences never meet in a product or a sum: a NaN stays at home, and alone
or in any batch the results agree to the last bits of float32.
"""

import importlib.util
import inspect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.dense_attention import attend_densely
from engine_svc.models.prefixes import Merging

FLASH_DTYPES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent sequences of equal length, each with as many tokens that have rows of their own."""

    start: int  # first token
    first_row: int
    sequences: int
    length: int  # tokens of each
    own_tokens: int  # of each, its last ones

    @property
    def stop(self) -> int:
        return self.start + self.sequences * self.length

    @property
    def stop_row(self) -> int:
        return self.first_row + self.sequences * self.own_tokens


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the sequences of a packed batch lie. The same for all layers, so computed once per batch."""

    cu_seqlens: Tensor  # int32 [B + 1], on the device
    cu_rows: Tensor  # int32 [B + 1]: the same, of the rows of own tokens
    length_max: int
    runs: tuple[Run, ...]  # in the order of the tokens
    row_of_token: Tensor | None = None  # int [T], where rows stand for several tokens; otherwise each has its own

    @classmethod
    def of(cls, lengths: Sequence[int], cu_seqlens: Tensor) -> "Layout":
        """`lengths` [B] are at least 1; `cu_seqlens` is theirs, on the device that computes."""
        return cls(cu_seqlens, cu_seqlens, max(lengths), tuple(runs_of(lengths, lengths)))

    @classmethod
    def of_merged(
        cls,
        lengths: Sequence[int],
        own_lengths: Sequence[int],
        cu_seqlens: Tensor,
        cu_rows: Tensor,
        row_of_token: Tensor,
    ) -> "Layout":
        """As `of`, for sequences some of whose tokens share rows: each has rows of its own for its last `own_lengths`
        tokens."""
        return cls(cu_seqlens, cu_rows, max(lengths), tuple(runs_of(lengths, own_lengths)), row_of_token)

    def merged(self, merging: Merging) -> "Layout":
        """The same sequences, some of whose tokens share rows."""
        device = self.cu_seqlens.device
        own = merging.own_tokens
        cu_rows = torch.from_numpy(np.concatenate([[0], own.cumsum()]).astype(np.int32)).to(device)
        lengths = [run.length for run in self.runs for _ in range(run.sequences)]
        row_of_token = torch.from_numpy(merging.row_of_token).to(device)
        return Layout(self.cu_seqlens, cu_rows, self.length_max, tuple(runs_of(lengths, own.tolist())), row_of_token)

    def to_tokens(self, rows: Tensor) -> Tensor:
        """[rows, ...] as [at least T, ...]."""
        return rows if self.row_of_token is None else rows.index_select(0, self.row_of_token)


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
    """Softmax attention of each token to those of its own sequence that the pattern lets it see.

    `query` is [rows, heads, head_dim], `key` and `value` are [rows, key heads, head_dim], strided or not; the result is
    as `query`, contiguous. On the CPU, rows behind the last token of the layout are 0 in the result.
    """
    attends = attend_by_flash if uses_flash(query, pattern) else attend_by_runs
    return attends(query, layout.to_tokens(key), layout.to_tokens(value), layout, pattern)


def attend_by_flash(query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
    """Queries that are fewer than keys are the last ones, as the kernel has it."""
    from torch.nn.attention.varlen import varlen_attn

    # torch 2.11 lets heads share keys without being told; later ones refuse it unless they are.
    grouped: dict[str, Any] = (
        {"enable_gqa": query.shape[1] != key.shape[1]} if "enable_gqa" in flash_parameters() else {}
    )
    result = varlen_attn(
        *(query, key, value, layout.cu_rows, layout.cu_seqlens, layout.length_max, layout.length_max),
        scale=pattern.scale,
        window_size=(-1 if pattern.behind is None else pattern.behind, -1 if pattern.ahead is None else pattern.ahead),
        **grouped,
    )
    assert isinstance(result, Tensor)  # a tuple only if more was asked for
    return result


def attend_by_runs(query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
    result = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    for run in layout.runs:
        if run.own_tokens:
            attended = attend_densely(rows_of(query, run), tokens_of(key, run), tokens_of(value, run), pattern)
            rows_of(result, run).copy_(attended)
    result[layout.runs[-1].stop_row :] = 0
    return result


def tokens_of(tokens: Tensor, run: Run) -> Tensor:
    """View [sequences, heads, length, head_dim] of a run's tokens."""
    return tokens[run.start : run.stop].view(run.sequences, run.length, *tokens.shape[1:]).transpose(1, 2)


def rows_of(rows: Tensor, run: Run) -> Tensor:
    """View [sequences, heads, own tokens, head_dim] of a run's rows."""
    own = rows[run.first_row : run.stop_row]
    return own.view(run.sequences, run.own_tokens, *rows.shape[1:]).transpose(1, 2)


def runs_of(lengths: Sequence[int], own_tokens: Sequence[int]) -> list[Run]:
    runs: list[Run] = []
    start = first_row = 0
    for (length, own), equal in itertools.groupby(zip(lengths, own_tokens, strict=True)):
        runs.append(Run(start, first_row, sum(1 for _ in equal), length, own))
        start, first_row = runs[-1].stop, runs[-1].stop_row
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
    """The kernel has a public name from torch 2.10 on, and windows and a scale from 2.11 on."""
    return "window_size" in flash_parameters() and torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def flash_parameters() -> frozenset[str]:
    """What the kernel of this version of torch can be told; none where there is no such kernel."""
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return frozenset()
    from torch.nn.attention.varlen import varlen_attn

    return frozenset(inspect.signature(varlen_attn).parameters)
