"""Examples of the attention kernel in the forms that models use, for tests and `tests.gpu`. The plain version of each
is attention by runs."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engine_svc.models.alibi import alibi_bias
from engine_svc.models.attention import attend_by_runs
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.disentangled_attention import DisentangledAttention
from engine_svc.models.kernels.attention import attend_by_kernel
from engine_svc.models.kernels.kernel import Kernel
from engine_svc.models.layout import Layout

LENGTHS = (1, 2, 17, 64, 500, 1025)
LENGTHS_CPU = (1, 17)


def lengths_of(device: torch.device) -> Sequence[int]:
    return LENGTHS_CPU if device.type == "cpu" else LENGTHS


def layout_of(lengths: Sequence[int], device: torch.device) -> Layout:
    return Layout.of(lengths, cumulated(lengths, device))


def cumulated(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=device)


def example(
    heads: tuple[int, int, int],
    pattern_of: Callable[[torch.device], AttentionPattern],
    device: torch.device,
    dtype: torch.dtype,
) -> Sequence[Any]:
    """`heads` are the number of query heads, that of key heads, and head_dim."""
    queries, keys, head_dim = heads
    lengths = lengths_of(device)
    projected = torch.randn(sum(lengths), queries + 2 * keys, head_dim, device=device).to(dtype)
    return *torch.split(projected, [queries, keys, keys], 1), layout_of(lengths, device), pattern_of(device)


def with_alibi(device: torch.device) -> AttentionPattern:
    return AttentionPattern(bias=alibi_bias(12, max(lengths_of(device)), device))


def disentangled_example(device: torch.device, dtype: torch.dtype) -> Sequence[Any]:
    """DeBERTa v3's sizes, but with 64 places."""
    heads, head_dim, places, lengths = 12, 64, 64, lengths_of(device)
    longest = max(lengths)
    of_queries, of_keys = torch.randn(2, heads, head_dim, places, device=device).to(dtype)
    attention = DisentangledAttention(
        query_key_value=torch.nn.Identity(),
        output=torch.nn.Identity(),
        heads=heads,
        key_heads=heads,
        pattern=AttentionPattern(),
        scale=(3 * head_dim) ** -0.5,
        place_keys=of_queries,
        place_queries=of_keys,
        places=places,
        place_of_distance=(torch.arange(1 - longest, longest, device=device) + places // 2).clamp(0, places - 1),
    )
    projected = torch.randn(sum(lengths), 3, heads, head_dim, device=device).to(dtype)
    return attention, *projected.unbind(1), layout_of(lengths, device)


ATTENTION_KERNELS: Mapping[str, Kernel] = {
    "attention": Kernel(attend_by_kernel, attend_by_runs, partial(example, (12, 12, 32), lambda _: AttentionPattern())),
    "attention, causal window, softcap": Kernel(
        attend_by_kernel,
        attend_by_runs,
        partial(example, (8, 4, 256), lambda _: AttentionPattern(behind=100, ahead=0, softcap=50.0)),
    ),
    "attention, ALiBi": Kernel(attend_by_kernel, attend_by_runs, partial(example, (12, 12, 64), with_alibi)),
    "disentangled attention": Kernel(
        DisentangledAttention.attend_by_kernel, DisentangledAttention.attend_by_runs, disentangled_example
    ),
}
