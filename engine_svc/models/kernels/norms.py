"""Layer norm and RMS norm of rows, fused with the residual addition before and the quantization to FP8 after. Each row
is read once and written once. `engine_svc.models.norms` and `engine_svc.models.transformer` call it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine_svc.models.float8 import Float8Rows
from engine_svc.models.kernels.launch import choose_tile
from engine_svc.models.kernels.quantize import empty_float8, quantize_values
from engine_svc.models.norms import LayerNorm, RMSNorm


@triton.jit(do_not_specialize=["rows"])
def normalize_kernel(
    hidden: tl.tensor,
    update: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    result: tl.tensor,
    scales: tl.tensor,
    rows: tl.tensor,
    epsilon: tl.tensor,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    IS_RMS: tl.constexpr,
    KEEPS_SUM: tl.constexpr,
) -> None:
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    is_inside = (row < rows) & (column < WIDTH)
    place = row.to(tl.int64) * WIDTH + column
    values = tl.load(hidden + place, is_inside, other=0.0).to(tl.float32)
    if update is not None:
        added = tl.load(update + place, is_inside, other=0.0).to(tl.float32)
        total = (values + added).to(update.dtype.element_ty)
        if KEEPS_SUM:
            tl.store(update + place, total, is_inside)
        values = total.to(tl.float32)
    if not IS_RMS:
        values = tl.where(column < WIDTH, values - tl.sum(values, 1, keep_dims=True) / WIDTH, 0.0)
    variance = tl.sum(values * values, 1, keep_dims=True) / WIDTH
    values *= tl.rsqrt(variance + epsilon)
    values *= tl.load(weight + column, column < WIDTH, other=0.0).to(tl.float32)
    if bias is not None:
        values += tl.load(bias + column, column < WIDTH, other=0.0).to(tl.float32)
    if scales is not None:
        value, scale = quantize_values(values)
        tl.store(result + place, value, is_inside)
        tl.store(scales + row, scale, row < rows)
    else:
        tl.store(result + place, values.to(result.dtype.element_ty), is_inside)


def normalize(hidden: Tensor, norm: LayerNorm | RMSNorm, update: Tensor | None = None) -> Tensor:
    """The norm of `hidden` [..., width], or of hidden + update, in a new tensor of the same type."""
    result = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    launch(hidden, norm, update, result)
    return result


def add_and_normalize(
    hidden: Tensor, norm: LayerNorm | RMSNorm, update: Tensor | None, *, as_float8: bool
) -> Tensor | Float8Rows:
    """The norm of hidden + update [rows, width], or of `hidden` alone, in a new tensor. The sum is written over
    `update`."""
    if not as_float8:
        result = torch.empty_like(hidden)
        launch(hidden, norm, update, result, keeps_sum=update is not None)
        return result
    rows = empty_float8(hidden.shape, hidden.device)
    launch(hidden, norm, update, rows.values, rows.scales, keeps_sum=update is not None)
    return rows


def launch(
    hidden: Tensor,
    norm: LayerNorm | RMSNorm,
    update: Tensor | None,
    result: Tensor,
    scales: Tensor | None = None,
    *,
    keeps_sum: bool = False,
) -> None:
    [width] = norm.weight.shape
    rows, tile = hidden.numel() // width, choose_tile(width)
    assert update is None or update.is_contiguous()
    is_rms = isinstance(norm, RMSNorm)
    normalize_kernel[(tile.num_programs(rows),)](
        *(hidden.contiguous(), update, norm.weight, None if isinstance(norm, RMSNorm) else norm.bias),
        *(result, scales, rows, norm.epsilon, width, tile.rows, tile.columns, is_rms, keeps_sum),
        num_warps=tile.warps,
    )
