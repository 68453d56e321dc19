"""Attention inside each sequence of a packed batch, without padding.

On CUDA one flash kernel takes the whole batch by its `cu_seqlens`. Elsewhere adjacent sequences of equal length are a
plain [sequences, length] view of the packed tokens and run as one call: long ones of PyTorch's own attention, short
ones of batched products. Sequences never meet in a product or a sum: a NaN stays at home, and alone or in any batch
the results agree to the last bits of float32. A batch sorted by length has the fewest calls.
"""

import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

# Up to this length PyTorch's attention spends more on its blocks than on their contents.
SHORT_TOKENS = 16

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
    runs: tuple[Run, ...]  # in the order of the tokens; () where flash attention needs none

    @classmethod
    def of(cls, lengths: Sequence[int], cu_seqlens: Tensor, *, head_dim: int, dtype: torch.dtype) -> "Layout":
        """`lengths` [B] are at least 1; `cu_seqlens` is theirs, on the device that computes."""
        by_flash = uses_flash(cu_seqlens.device, head_dim, dtype)
        return cls(cu_seqlens, max(lengths), () if by_flash else tuple(runs_of(lengths)))


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    """Softmax attention over all tokens of the own sequence, scaled by 1 / sqrt(head_dim).

    `query`, `key` and `value` are [rows, heads, head_dim], strided or not; so is the result, contiguous. On the CPU,
    rows behind the last token of the layout are 0 in the result.
    """
    if layout.runs:
        return attend_by_runs(query, key, value, layout)
    return attend_by_flash(query, key, value, layout)


def attend_by_flash(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    cu_seqlens, length_max = layout.cu_seqlens, layout.length_max
    result = varlen_attn(query, key, value, cu_seqlens, cu_seqlens, length_max, length_max)
    assert isinstance(result, Tensor)  # a tuple only if more was asked for
    return result


def attend_by_runs(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    result = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    for run in layout.runs:
        attention = attend_by_products if run.length <= SHORT_TOKENS else functional.scaled_dot_product_attention
        attended = attention(sequences_of(query, run), sequences_of(key, run), sequences_of(value, run))
        sequences_of(result, run).copy_(attended)
    result[layout.runs[-1].stop :] = 0
    return result


def attend_by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The formula in float32, all sequences and heads at once; [sequences, heads, length, head_dim], as is the result.
    Keeps the scores of all pairs of tokens, so it is for short sequences."""
    # Copied, so that the products find the same strides whatever the batch: with others MKL rounds otherwise.
    query, key, value = torch.stack([query, key, value]).float()
    weights = (query @ key.transpose(2, 3)).mul_(query.shape[3] ** -0.5).softmax(3)
    return weights @ value


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


def uses_flash(device: torch.device, head_dim: int, dtype: torch.dtype) -> bool:
    """What the kernel can do: bfloat16 and float16, heads of a multiple of 8 up to 256, from Ampere on."""
    can_kernel = dtype in FLASH_DTYPES and head_dim % 8 == 0 and head_dim <= 256
    return can_kernel and device.type == "cuda" and has_flash(device)


@cache
def has_flash(device: torch.device) -> bool:
    """PyTorch has the kernel's public name from 2.10 on."""
    in_torch = importlib.util.find_spec("torch.nn.attention.varlen") is not None
    return in_torch and torch.cuda.get_device_capability(device) >= (8, 0)
