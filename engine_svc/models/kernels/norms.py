"""Layer norm and RMS norm of rows, fused with the residual addition before and the quantization to FP8 after. Each row
is read once and written once. `engine_svc.models.norms` and `engine_svc.models.residual_stream` call it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine_svc.device import FP8
from engine_svc.models.float8 import Float8Rows, quantize_rows_plainly
from engine_svc.models.kernels.kernel import Kernel
from engine_svc.models.kernels.quantize import empty_float8, quantized, widened
from engine_svc.models.kernels.tiles import tile_of
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
        value, scale = quantized(values)
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
    rows, tile = hidden.numel() // width, tile_of(width)
    assert update is None or update.is_contiguous()
    is_rms = isinstance(norm, RMSNorm)
    normalize_kernel[(tile.programs(rows),)](
        *(hidden.contiguous(), update, norm.weight, None if isinstance(norm, RMSNorm) else norm.bias),
        *(result, scales, rows, norm.epsilon, width, tile.rows, tile.columns, is_rms, keeps_sum),
        num_warps=tile.warps,
    )


def normalize_plainly(hidden: Tensor, norm: LayerNorm | RMSNorm, update: Tensor | None = None) -> Tensor:
    total = hidden if update is None else update + hidden
    return norm.plainly(total) if isinstance(norm, RMSNorm) else norm(total)


def normalize_to_float8(hidden: Tensor, norm: LayerNorm | RMSNorm, update: Tensor) -> Tensor:
    rows = add_and_normalize(hidden, norm, update.clone(), as_float8=True)
    assert isinstance(rows, Float8Rows)
    return widened(rows)


def normalize_to_float8_plainly(hidden: Tensor, norm: LayerNorm | RMSNorm, update: Tensor) -> Tensor:
    """The kernel rounds the norm once, to FP8."""
    if isinstance(norm, LayerNorm):
        norm = LayerNorm(norm.weight.float(), None if norm.bias is None else norm.bias.float(), norm.epsilon)
    return widened(quantize_rows_plainly(normalize_plainly((update + hidden).float(), norm)))


def rms_norm(weight: Tensor, dtype: torch.dtype) -> RMSNorm:
    return RMSNorm(weight, 1e-6)


def layer_norm(weight: Tensor, dtype: torch.dtype) -> LayerNorm:
    return LayerNorm(weight.to(dtype), weight.roll(1).to(dtype), 1e-12)


def example(
    device: torch.device,
    dtype: torch.dtype,
    *,
    norm_of: Callable[[Tensor, torch.dtype], LayerNorm | RMSNorm],
    has_update: bool = True,
) -> tuple[Any, ...]:
    rows, width = (4099, 4096) if device.type == "cuda" else (3, 200)
    hidden, update = torch.randn(2, rows, width, device=device).to(dtype)
    norm = norm_of(torch.randn(width, device=device), dtype)
    return (hidden, norm, update) if has_update else (hidden, norm)


def kernels_of(kind: str, norm_of: Callable[[Tensor, torch.dtype], LayerNorm | RMSNorm]) -> Mapping[str, Kernel]:
    of_sum = partial(example, norm_of=norm_of)
    return {
        kind: Kernel(normalize, normalize_plainly, partial(of_sum, has_update=False)),
        f"{kind} of a sum": Kernel(normalize, normalize_plainly, of_sum),
        f"{kind} of a sum to float8": Kernel(normalize_to_float8, normalize_to_float8_plainly, of_sum, FP8),
    }


KERNELS: Mapping[str, Kernel] = {**kernels_of("RMS norm", rms_norm), **kernels_of("layer norm", layer_norm)}
