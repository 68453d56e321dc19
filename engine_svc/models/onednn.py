"""Reports which fast products oneDNN has on this CPU, and rounds batches to row counts that it handles well.
`engine_svc.models.linear` and `engine_svc.models.int8` call this.
"""
# ruff: noqa: SLF001 - PyTorch has no public names for oneDNN's operations and for the features of a CPU

from functools import cache

import torch

# oneDNN takes milliseconds to compile a primitive for each number of rows, and caches a few thousand. With rows rounded
# up to these steps, all primitives fit, and few batches are padded by more than an eighth.
ROWS_STEP_MIN, ROWS_STEP_MAX = 8, 32


def round_up_rows(rows: int) -> int:
    eighth = 1 << max(0, (rows - 1).bit_length() - 3)
    step = min(max(eighth, ROWS_STEP_MIN), ROWS_STEP_MAX)
    return -rows % step + rows


@cache
def has_16_bit_products(device: torch.device, dtype: torch.dtype) -> bool:
    if not has_onednn(device):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float16 and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


@cache
def has_int8_products(device: torch.device) -> bool:
    """Requires AVX-512 VNNI. Without it, oneDNN's int8 products saturate at 16 bits or run in slow reference code."""
    is_fast = getattr(torch.cpu, "_is_vnni_supported", bool)
    return has_onednn(device) and is_fast() and hasattr(torch.ops.onednn, "qlinear_pointwise")


def has_onednn(device: torch.device) -> bool:
    return device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
