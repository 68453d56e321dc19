"""Flash kernels of other packages: flash-attn 3 on Hopper, flash-attn 2, and the one in PyTorch. Each takes a packed
batch and its `cu_seqlens`, in 16 bit. `engine_svc.models.attention` asks for the best installed one.

They never split keys (`num_splits`), because partial sums are added in an order that depends on the batch. So a
sequence has the same result in any batch. The maximum lengths passed to them are rounded up to a few values, so that a
CUDA graph of a pass fits many batches.
"""

import importlib
import importlib.util
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.layout import Layout

# From query [rows, heads, head_dim], key and value [tokens, kv heads, head_dim] to the shape of the query.
Attend = Callable[[Tensor, Tensor, Tensor, Layout, AttentionPattern], Tensor]

FLASH_DTYPES = (torch.bfloat16, torch.float16)
HEAD_DIM_MAX = 256

logger = logging.getLogger(__name__)


def find_flash_attention(device: torch.device, dtype: torch.dtype, head_dim: int, has_softcap: bool) -> Attend | None:
    """The best kernel for these sizes, or None. No flash kernel adds a bias."""
    if dtype not in FLASH_DTYPES or head_dim % 8 or head_dim > HEAD_DIM_MAX:
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return None
    hopper = find_flash_attn_3() if capability[0] == 9 else None
    return hopper or find_flash_attn_2() or (None if has_softcap else find_torch_varlen())


def find_flash_attn_3() -> Attend | None:
    kernel = find_function("flash_attn_interface", "flash_attn_varlen_func", "softcap", "num_splits")
    return None if kernel is None else FlashAttn(kernel, {"num_splits": 1})


def find_flash_attn_2() -> Attend | None:
    """It splits keys only where `max_seqlen_q` is 1, and `Layout.max_seqlen_q` never is."""
    kernel = find_function("flash_attn", "flash_attn_varlen_func", "softcap", "window_size")
    return None if kernel is None else FlashAttn(kernel, {})


def find_torch_varlen() -> Attend | None:
    """Needs torch 2.11: in 2.10 it has neither windows nor a scale."""
    kernel = find_function("torch.nn.attention.varlen", "varlen_attn", "window_size", "scale")
    if kernel is None:
        return None
    parameters = inspect.signature(kernel).parameters
    return Varlen(kernel, "enable_gqa" in parameters, {"num_splits": 1} if "num_splits" in parameters else {})


def find_function(module: str, name: str, *parameters: str) -> Callable[..., Any] | None:
    """The function of an installed module, if it takes these parameters."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        kernel: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except ImportError as error:  # built for another version of PyTorch
        logger.warning("%s is installed, but cannot be used: %s", module, error)
        return None
    return kernel if inspect.signature(kernel).parameters.keys() >= set(parameters) else None


@dataclass(frozen=True, slots=True)
class FlashAttn:
    """flash-attn 2 or 3. If a sequence has fewer queries than keys, they are those of its last tokens."""

    kernel: Callable[..., Any]
    options: Mapping[str, int]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
        result = self.kernel(
            *(query, key, value, *seqlens(layout, pattern)),
            softmax_scale=pattern.scale,
            causal=pattern.window_right == 0,
            window_size=window_size(pattern),
            softcap=pattern.softcap or 0.0,
            **self.options,
        )
        attended: Tensor = result[0] if isinstance(result, tuple) else result  # the first versions of flash-attn 3
        return attended


@dataclass(frozen=True, slots=True)
class Varlen:
    """PyTorch's `varlen_attn`. From 2.12 on, it needs `enable_gqa` if there are fewer kv heads than query heads."""

    kernel: Callable[..., Any]
    takes_gqa: bool
    options: Mapping[str, int]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
        is_grouped = self.takes_gqa and query.shape[1] != key.shape[1]
        attended: Tensor = self.kernel(
            *(query, key, value, *seqlens(layout, pattern)),
            scale=pattern.scale,
            window_size=window_size(pattern),
            **self.options,
            **({"enable_gqa": True} if is_grouped else {}),
        )
        return attended


def window_size(pattern: AttentionPattern) -> tuple[int, int]:
    return (
        -1 if pattern.window_left is None else pattern.window_left,
        -1 if pattern.window_right is None else pattern.window_right,
    )


def seqlens(layout: Layout, pattern: AttentionPattern) -> tuple[Tensor, Tensor, int, int]:
    """Cumulative lengths of queries and of keys, and the maximum lengths. That of keys is always longer than the
    window: a kernel ignores a window that is longer than the maximum, and then rounds differently, so that the result
    for a sequence would depend on the batch."""
    max_seqlen_k = max(layout.max_seqlen_k, *(window + 2 for window in window_size(pattern)))
    return layout.cu_seqlens_q, layout.cu_seqlens, layout.max_seqlen_q, max_seqlen_k
