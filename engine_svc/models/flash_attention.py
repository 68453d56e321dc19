"""The flash kernels of others: flash-attn 3 on Hopper, flash-attn 2, and the one in PyTorch. Each takes a packed batch
and its `cu_seqlens`, in 16 bit. `engine_svc.models.attention` asks for the best one that is installed.

They are called so that a sequence has the same result in any batch: never with split keys (`num_splits`), whose partial
sums are added in an order that depends on the batch. The longest lengths that they are given are rounded up to a few
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
    """The best kernel for this, or None. No flash kernel adds a bias."""
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
    """From torch 2.11 on: 2.10 has neither windows nor a scale."""
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
    """flash-attn 2 or 3. With fewer queries than keys, it takes the queries for those of the last tokens."""

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
    """PyTorch's. From 2.12 on, it takes fewer key heads than query heads only with `enable_gqa`."""

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
    """Always longer than the window. A kernel ignores a window that is longer than the longest sequence, and then
    rounds differently: a sequence would depend on the batch."""
    return max(layout.key_bucket, *(reach + 2 for reach in window_of(pattern)))
