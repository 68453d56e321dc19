"""Quantizes rows to FP8 in one pass over them. `engine_svc.models.float8` calls it; the kernels for norms and gates use
its `quantized` where an FP8 linear follows."""

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine_svc.device import FP8
from engine_svc.models.float8 import FLOAT8, FLOAT8_MAX, Float8Rows, quantize_rows_plainly
from engine_svc.models.kernels.kernel import Kernel
from engine_svc.models.kernels.tiles import tile_of

LARGEST = tl.constexpr(FLOAT8_MAX)
# Rows whose numbers are all smaller than this become zeros: the inverse of their scale would overflow.
SMALLEST = tl.constexpr(1e-35)


@triton.jit
def bits_of_magnitudes(values: tl.tensor) -> tl.tensor:
    """The bits of float32 magnitudes as integers. Their order is that of the magnitudes, and NaN is the largest, so a
    maximum keeps it."""
    return tl.abs(values).to(tl.int32, bitcast=True)


@triton.jit
def scale_of(bits: tl.tensor) -> tl.tuple:
    """The scale of a row and the inverse of the scale, from the bits of the row's largest magnitude."""
    largest = bits.to(tl.float32, bitcast=True)
    largest = tl.where(largest < SMALLEST, SMALLEST, largest)
    return largest / LARGEST, LARGEST / largest


@triton.jit
def quantized(values: tl.tensor) -> tl.tuple:
    """float32 [rows, columns] to float8 values, and scales [rows, 1]."""
    scale, inverse = scale_of(tl.max(bits_of_magnitudes(values), 1, keep_dims=True))
    return (values * inverse).to(tl.float8e4nv), scale


@triton.jit(do_not_specialize=["rows"])
def quantize_kernel(
    inputs: tl.tensor,
    values: tl.tensor,
    scales: tl.tensor,
    rows: tl.tensor,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    is_inside = (row < rows) & (column < WIDTH)
    place = row.to(tl.int64) * WIDTH + column
    value, scale = quantized(tl.load(inputs + place, is_inside, other=0.0).to(tl.float32))
    tl.store(values + place, value, is_inside)
    tl.store(scales + row, scale, row < rows)


def quantize_rows_by_kernel(rows: Tensor) -> Float8Rows:
    """`rows` is [rows, numbers], of any floating type."""
    rows = rows.contiguous()
    result = empty_float8(rows.shape, rows.device)
    count, width = rows.shape
    tile = tile_of(width)
    quantize_kernel[(tile.programs(count),)](
        *(rows, result.values, result.scales, count, width, tile.rows, tile.columns), num_warps=tile.warps
    )
    return result


def empty_float8(shape: torch.Size, device: torch.device) -> Float8Rows:
    return Float8Rows(
        torch.empty(shape, dtype=FLOAT8, device=device),
        torch.empty(shape[0], 1, dtype=torch.float32, device=device),
    )


def widened(rows: Float8Rows) -> Tensor:
    return rows.values.float() * rows.scales


def example(device: torch.device, dtype: torch.dtype) -> tuple[Tensor]:
    return (torch.randn((4099, 4096) if device.type == "cuda" else (3, 200), device=device).to(dtype),)


KERNELS: Mapping[str, Kernel] = {
    "rows to float8": Kernel(
        lambda rows: widened(quantize_rows_by_kernel(rows)),
        lambda rows: widened(quantize_rows_plainly(rows)),
        example,
        FP8,
    )
}
