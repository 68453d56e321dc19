"""The flash kernels that may be installed: flash-attn 3 on Hopper, flash-attn 2, and the one in PyTorch. They take a
whole packed batch by its `cu_seqlens`, in 16 bit. `engine_svc.models.attention` asks for the best one.

All get the same promises. The longest sequence is rounded up, so that few values occur. Keys are not split among blocks
whose sums meet in the end, so that the result for a sequence does not depend on the batch.
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
    """None where no kernel that is installed can do it. None of them adds a bias."""
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
    """It splits keys in a single case, one query per sequence, which the bucket of lengths rules out."""
    kernel = installed("flash_attn", "flash_attn_varlen_func", "softcap", "window_size")
    return None if kernel is None else FlashAttn(kernel, {})


def torch_varlen() -> Attend | None:
    """torch has it from 2.10 on, and with windows and a scale from 2.11 on."""
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
    """Of either version. With fewer queries than keys, they are the last ones."""

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
    """PyTorch's. Version 2.11 lets heads share keys without being told; later ones refuse it unless they are."""

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
    """Beyond the window. The kernels drop a window that is wider than the longest sequence, and round otherwise with
    it than without."""
    return max(layout.key_bucket, *(reach + 2 for reach in window_of(pattern)))
