"""Rows in NVFP4: E2M1 numbers, two in a byte, an E4M3 scale for each 16 of them, and a float32 scale. The layout is
that of NVIDIA's ModelOpt (`weight`, `weight_scale`, `weight_scale_2`). Each row of inputs has a float32 scale of its
own, so that it is quantized without the others; all rows of a weight have the same.
`engine_svc.models.quantized_linear` makes such rows of weights and multiplies by them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.float8 import FLOAT8, FLOAT8_MAX

BLOCK = 16  # numbers that share an E4M3 scale

# Indexed by the lower three bits of the code. The fourth is the sign.
MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
FLOAT4_MAX = MAGNITUDES[-1]

# If the largest magnitude of a row were smaller, its scale would not be a normal float32 number.
LARGEST_MIN = 1e-30

# The scales to try for a block of a weight, in steps from one E4M3 number to the next; eight steps double a scale. Step
# 0 makes the block's largest magnitude 8. Steps 2 to 4 make it about 6, as usual. Steps 7 and 8 make it about 4,
# below which the numbers lie closer (Cook et al. 2025, arXiv 2512.02010). More steps gain nothing.
FITTED_STEPS = (2, 3, 4, 7, 8)
# E4M3 has both this number and 1.5 times it, so a row's largest magnitude can be exactly 6 or exactly 4.
LARGEST_FITTED_SCALE = 256.0

# The GPU's product reads scales in tiles of this size.
TILE_ROWS, TILE_COLUMNS = 128, 4


@dataclass(frozen=True, slots=True)
class Float4Rows:
    """The numbers are values * block_scales * scales."""

    packed: Tensor  # uint8 [rows, numbers / 2]; the number with the even index in the lower bits
    block_scales: Tensor  # float8_e4m3fn [rows, numbers / BLOCK]
    scales: Tensor  # float32 [rows, 1]


def quantize_to_float4(rows: Tensor) -> Float4Rows:
    """For the inputs of a linear: each block's largest magnitude becomes 6. The length of a row must be a multiple of
    BLOCK."""
    blocks = split_blocks(rows)
    largest = blocks.abs().amax(-1)
    scales = compute_scales(largest, FLOAT8_MAX)
    return pack(blocks, (largest / (FLOAT4_MAX * scales)).to(FLOAT8), scales)


def fit_to_float4(rows: Tensor, scales: Tensor | None = None) -> Float4Rows:
    """For weights: like `quantize_to_float4`, but tries several scales for each block and keeps the one with the least
    squared error. On normally distributed weights the error is 0.082 of their norm instead of 0.095. `scales`, float32
    [rows or 1, 1], replace each row's own; see `compute_scales` for how large they must be."""
    blocks = split_blocks(rows)
    magnitudes = blocks.abs()
    largest = magnitudes.amax(-1)
    if scales is None:
        scales = compute_scales(largest, LARGEST_FITTED_SCALE)
    lowest = (largest / (8 * scales)).to(FLOAT8).view(torch.uint8)
    best, least = lowest, torch.full_like(largest, torch.inf)
    for step in FITTED_STEPS:
        candidate = lowest + step
        divisors = candidate.view(FLOAT8).float() * scales
        values = magnitudes / divisors.unsqueeze(-1)
        errors = (round_to_float4(values) - values).square_().sum(-1) * divisors.square()
        best, least = candidate.where(errors < least, best), errors.minimum(least)
    return pack(blocks, best.view(FLOAT8), scales)


def compute_shared_scale(largest: Tensor) -> Tensor:
    """For `fit_to_float4`, from the largest magnitude (float32) in all weights that have the scale in common. Builds
    and loading both call this, so that their vectors are the same."""
    return largest.clamp(min=LARGEST_MIN) / (FLOAT4_MAX * LARGEST_FITTED_SCALE)


def split_blocks(rows: Tensor) -> Tensor:
    count, numbers = rows.shape
    return rows.float().reshape(count, numbers // BLOCK, BLOCK)


def compute_scales(largest: Tensor, largest_scale: float) -> Tensor:
    """[rows, 1], from the largest magnitudes of blocks. The largest magnitude of a row becomes 6 if its block has the
    scale `largest_scale`."""
    return largest.amax(-1, keepdim=True).clamp(min=LARGEST_MIN) / (FLOAT4_MAX * largest_scale)


def pack(blocks: Tensor, block_scales: Tensor, scales: Tensor) -> Float4Rows:
    divisors = block_scales.float() * scales
    # Blocks whose scale is too small for E4M3 become zeros.
    divisors = divisors.where(divisors > 0, torch.inf)
    codes = encode(blocks / divisors.unsqueeze(-1))
    even, odd = codes.view(*block_scales.shape, BLOCK // 2, 2).unbind(-1)
    return Float4Rows((even | odd << 4).flatten(1), block_scales, scales)


def round_to_float4(magnitudes: Tensor) -> Tensor:
    """The nearest of MAGNITUDES; between two, the one with the even code."""
    halves, twos = (magnitudes * 2).round_().mul_(0.5), (magnitudes * 0.5).round_().mul_(2).clamp_(max=FLOAT4_MAX)
    return halves.where(magnitudes < 2, magnitudes.round().where(magnitudes < 4, twos))


def encode(values: Tensor) -> Tensor:
    rounded = round_to_float4(values.abs())
    places = (2 * rounded).where(rounded < 2, (rounded + 2).where(rounded < 4, rounded * 0.5 + 4))
    return places.to(torch.uint8) | (values < 0).to(torch.uint8) << 3


def dequantize_float4(rows: Float4Rows, byte_table: Tensor) -> Tensor:
    """[rows, numbers] in the type of `byte_table`, which `make_byte_table` makes."""
    values = functional.embedding(rows.packed.int(), byte_table).view(*rows.block_scales.shape, BLOCK)
    return values.mul_((rows.block_scales.float() * rows.scales).unsqueeze(-1)).flatten(1)


def make_byte_table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """[256, 2]: the two numbers in each byte. Made at load, as a forward pass must not wait for a copy to a GPU."""
    numbers = torch.tensor([*MAGNITUDES, *(-number for number in MAGNITUDES)], dtype=dtype)
    return torch.stack([numbers.repeat(16), numbers.repeat_interleave(16)], 1).to(device)


def swizzle(block_scales: Tensor) -> Tensor:
    """Block scales [rows, columns] in the order in which the GPU's product reads them, padded with zeros to full tiles.
    In each tile of 128 rows and 4 columns, the rows 0, 32, 64 and 96 come first, then 1, 33 and so on (SWIZZLE_32_4_4).
    """
    rows, columns = block_scales.shape
    fillers = (0, -columns % TILE_COLUMNS, 0, -rows % TILE_ROWS)
    padded = functional.pad(block_scales.view(torch.uint8), fillers)
    tiles = padded.view(-1, 4, 32, padded.shape[1] // TILE_COLUMNS, TILE_COLUMNS)
    return tiles.permute(0, 3, 2, 1, 4).reshape(-1).view(FLOAT8)
