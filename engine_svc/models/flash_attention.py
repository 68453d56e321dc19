"""Flash kernels of other packages: flash-attn 3 on Hopper, flash-attn 2, and the one in PyTorch. Each takes a packed
batch and its `cu_seqlens`, in 16 bit. `engine_svc.models.attention` asks for the best one that is installed.

They are never called with split keys (`num_splits`), whose partial sums are added in an order that depends on the
batch. So a sequence has the same result in any batch. The maximum lengths passed to them are rounded up to a few
values, so that a CUDA graph of a pass fits many batches.
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

# query [rows, heads, head_dim], key and value [tokens, key heads, head_dim], to the shape of the query.
Attend = Callable[[Tensor, Tensor, Tensor, Layout, AttentionPattern], Tensor]

FLASH_DTYPES = (torch.bfloat16, torch.float16)
HEAD_DIM_MAX = 256

logger = logging.getLogger(__name__)


def flash_attention(device: torch.device, dtype: torch.dtype, head_dim: int, has_softcap: bool) -> Attend | None:
    """The best kernel for these sizes, or None. No flash kernel adds a bias."""
    if dtype not in FLASH_DTYPES or head_dim % 8 or head_dim > HEAD_DIM_MAX:
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return None
    hopper = flash_attn_3() if capability[0] == 9 else None
    return hopper or flash_attn_2() or (None if has_softcap else torch_varlen())


def flash_attn_3() -> Attend | None:
    kernel = installed("flash_attn_interface", "flash_attn_varlen_func", "softcap", "num_splits")
    return None if kernel is None else FlashAttn(kernel, {"num_splits": 1})


def flash_attn_2() -> Attend | None:
    """It splits keys only where `max_seqlen_q` is 1, and `Layout.query_bucket` never is."""
    kernel = installed("flash_attn", "flash_attn_varlen_func", "softcap", "window_size")
    return None if kernel is None else FlashAttn(kernel, {})


def torch_varlen() -> Attend | None:
    """Needs torch 2.11: in 2.10 it has neither windows nor a scale."""
    kernel = installed("torch.nn.attention.varlen", "varlen_attn", "window_size", "scale")
    if kernel is None:
        return None
    parameters = inspect.signature(kernel).parameters
    return Varlen(kernel, "enable_gqa" in parameters, {"num_splits": 1} if "num_splits" in parameters else {})


def installed(module: str, name: str, *parameters: str) -> Callable[..., Any] | None:
    """The function of that name, if it takes these parameters."""
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
            *(query, key, value, layout.cu_rows, layout.cu_seqlens, layout.query_bucket, key_bucket(layout, pattern)),
            softmax_scale=pattern.scale,
            causal=pattern.ahead == 0,
            window_size=window_of(pattern),
            softcap=pattern.softcap or 0.0,
            **self.options,
        )
        attended: Tensor = result[0] if isinstance(result, tuple) else result  # the first versions of flash-attn 3
        return attended


@dataclass(frozen=True, slots=True)
class Varlen:
    """PyTorch's `varlen_attn`. From 2.12 on, it needs `enable_gqa` if there are fewer key heads than query heads."""

    kernel: Callable[..., Any]
    takes_gqa: bool
    options: Mapping[str, int]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
        is_grouped = self.takes_gqa and query.shape[1] != key.shape[1]
        attended: Tensor = self.kernel(
            *(query, key, value, layout.cu_rows, layout.cu_seqlens, layout.query_bucket, key_bucket(layout, pattern)),
            scale=pattern.scale,
            window_size=window_of(pattern),
            **self.options,
            **({"enable_gqa": True} if is_grouped else {}),
        )
        return attended


def window_of(pattern: AttentionPattern) -> tuple[int, int]:
    return -1 if pattern.behind is None else pattern.behind, -1 if pattern.ahead is None else pattern.ahead


def key_bucket(layout: Layout, pattern: AttentionPattern) -> int:
    """The maximum length of keys, always longer than the window. A kernel ignores a window that is longer than the
    maximum, and then rounds differently: the result for a sequence would depend on the batch."""
    return max(layout.key_bucket, *(reach + 2 for reach in window_of(pattern)))
