"""Quantizes rows to FP8, and dequantizes FP4 weights, in one pass over them. `engine_svc.models.float8` and
`engine_svc.models.quantized_linear` call it; the kernels for norms and gates use `quantize_values` if an FP8 linear
follows."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine_svc.models.float4 import BLOCK, Float4Rows
from engine_svc.models.float8 import FLOAT8, FLOAT8_MAX, Float8Rows
from engine_svc.models.kernels.launch import choose_tile

LARGEST = tl.constexpr(FLOAT8_MAX)
# Rows whose numbers are all smaller than this become zeros: the inverse of their scale would overflow.
SMALLEST = tl.constexpr(1e-35)

BYTES_PER_PROGRAM = 1024
BLOCK_BYTES = tl.constexpr(BLOCK // 2)
# The difference of the exponent biases of float32 and E4M3, shifted to the exponent's bits.
E4M3_TO_FLOAT32 = tl.constexpr((127 - 7) << 23)
E4M3_SMALLEST = tl.constexpr(2.0**-9)


@triton.jit
def magnitude_bits(values: tl.tensor) -> tl.tensor:
    """The bits of float32 magnitudes as integers. They sort like the magnitudes, and NaN is the largest, so a maximum
    keeps it."""
    return tl.abs(values).to(tl.int32, bitcast=True)


@triton.jit
def scale_from_bits(bits: tl.tensor) -> tl.tuple:
    """The scale of a row and its inverse, from the bits of the row's largest magnitude."""
    largest = bits.to(tl.float32, bitcast=True)
    largest = tl.where(largest < SMALLEST, SMALLEST, largest)
    return largest / LARGEST, LARGEST / largest


@triton.jit
def quantize_values(values: tl.tensor) -> tl.tuple:
    """Quantizes float32 [rows, columns] to float8 values and their scales [rows, 1]."""
    scale, inverse = scale_from_bits(tl.max(magnitude_bits(values), 1, keep_dims=True))
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
    value, scale = quantize_values(tl.load(inputs + place, is_inside, other=0.0).to(tl.float32))
    tl.store(values + place, value, is_inside)
    tl.store(scales + row, scale, row < rows)


def quantize_to_float8_by_kernel(rows: Tensor) -> Float8Rows:
    """`rows` is [rows, numbers], of any floating type."""
    rows = rows.contiguous()
    result = empty_float8(rows.shape, rows.device)
    count, width = rows.shape
    tile = choose_tile(width)
    quantize_kernel[(tile.num_programs(count),)](
        *(rows, result.values, result.scales, count, width, tile.rows, tile.columns), num_warps=tile.warps
    )
    return result


def empty_float8(shape: torch.Size, device: torch.device) -> Float8Rows:
    return Float8Rows(
        torch.empty(shape, dtype=FLOAT8, device=device),
        torch.empty(shape[0], 1, dtype=torch.float32, device=device),
    )


@triton.jit
def decode_e2m1(code: tl.tensor) -> tl.tensor:
    """Decodes four bits to float32."""
    place = (code & 7).to(tl.float32)
    magnitude = tl.where(place < 4, place * 0.5, tl.where(place < 6, place - 2.0, place * 2.0 - 8.0))
    return tl.where(code > 7, -magnitude, magnitude)


@triton.jit
def decode_e4m3(byte: tl.tensor) -> tl.tensor:
    """To float32. Ignores the sign, because scales have none. Triton has the type only on GPUs that have it."""
    bits = byte.to(tl.int32)
    normal = ((bits << 20) + E4M3_TO_FLOAT32).to(tl.float32, bitcast=True)
    return tl.where(bits < 8, bits.to(tl.float32) * E4M3_SMALLEST, normal)


@triton.jit(do_not_specialize=["count"])
def dequantize_kernel(
    packed: tl.tensor,
    block_scales: tl.tensor,
    scales: tl.tensor,
    result: tl.tensor,
    count: tl.tensor,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
) -> None:
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    is_inside = place < count
    byte = tl.load(packed + place, is_inside, other=0)
    block_scale = decode_e4m3(tl.load(block_scales + place // BLOCK_BYTES, is_inside, other=0))
    scale = block_scale * tl.load(scales + place // WIDTH, is_inside, other=0.0)
    values = tl.interleave(decode_e2m1(byte & 15) * scale, decode_e2m1(byte >> 4) * scale)
    both = tl.program_id(0).to(tl.int64) * (2 * SIZE) + tl.arange(0, 2 * SIZE)
    tl.store(result + both, values.to(result.dtype.element_ty), both < 2 * count)


def dequantize_float4_by_kernel(rows: Float4Rows, dtype: torch.dtype) -> Tensor:
    """[rows, numbers] in `dtype`."""
    count, width = rows.packed.shape
    result = torch.empty(count, 2 * width, dtype=dtype, device=rows.packed.device)
    programs = triton.cdiv(rows.packed.numel(), BYTES_PER_PROGRAM)
    block_scales = rows.block_scales.view(torch.uint8)
    dequantize_kernel[(programs,)](
        *(rows.packed, block_scales, rows.scales, result, rows.packed.numel(), width, BYTES_PER_PROGRAM), num_warps=4
    )
    return result
