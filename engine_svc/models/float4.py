"""Rows in NVFP4: E2M1 numbers, two in a byte, an E4M3 scale for each 16 of them, and a float32 scale. The layout is
that of NVIDIA's ModelOpt (`weight`, `weight_scale`, `weight_scale_2`), but each row has a float32 scale of its own: so
a row can be quantized without the others. `engine_svc.models.quantized_linear` calls this.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.float8 import FLOAT8, FLOAT8_MAX

BLOCK = 16  # numbers that share an E4M3 scale

# By code. The highest of the four bits is the sign.
MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
FLOAT4_MAX = MAGNITUDES[-1]

# The scale of smaller rows would not be a normal float32 number.
LARGEST_MIN = 1e-30

# The tile of scales that the GPU's product reads as one.
TILE_ROWS, TILE_COLUMNS = 128, 4


@dataclass(frozen=True, slots=True)
class Float4Rows:
    """Stands for values * block_scales * scales."""

    packed: Tensor  # uint8 [rows, numbers / 2]; the number with the even index in the lower bits
    block_scales: Tensor  # float8_e4m3fn [rows, numbers / BLOCK]
    scales: Tensor  # float32 [rows, 1]


def quantize_to_float4(rows: Tensor) -> Float4Rows:
    """Each row's largest magnitude gets the largest block scale. The numbers of a row must be a multiple of BLOCK."""
    count, numbers = rows.shape
    blocks = rows.float().reshape(count, numbers // BLOCK, BLOCK)
    largest = blocks.abs().amax(-1)
    scales = largest.amax(-1, keepdim=True).clamp(min=LARGEST_MIN) / (FLOAT4_MAX * FLOAT8_MAX)
    block_scales = (largest / (FLOAT4_MAX * scales)).to(FLOAT8)
    divisors = block_scales.float() * scales
    # Blocks whose scale is too small for E4M3 become zeros.
    divisors = divisors.where(divisors > 0, torch.inf)
    even, odd = codes_of(blocks / divisors.unsqueeze(-1)).view(count, numbers // 2, 2).unbind(-1)
    return Float4Rows(even | odd << 4, block_scales, scales)


def codes_of(values: Tensor) -> Tensor:
    """The nearest E2M1 number; between two, the one with the even code."""
    magnitudes = values.abs()
    codes = (values < 0).to(torch.uint8) << 3
    for code, (lower, upper) in enumerate(itertools.pairwise(MAGNITUDES), start=1):
        middle = (lower + upper) / 2
        codes += magnitudes > middle if code % 2 else magnitudes >= middle
    return codes


def widened(rows: Float4Rows, dtype: torch.dtype) -> Tensor:
    pairs = pairs_of_bytes(dtype, rows.packed.device)
    values = functional.embedding(rows.packed.int(), pairs).view(*rows.block_scales.shape, BLOCK)
    return values.mul_((rows.block_scales.float() * rows.scales).unsqueeze(-1)).flatten(1)


def pairs_of_bytes(dtype: torch.dtype, device: torch.device) -> Tensor:
    """[256, 2]: the two numbers in each byte."""
    codes = torch.arange(16, device=device)
    numbers = torch.tensor(MAGNITUDES, dtype=dtype, device=device)[codes & 7] * (1 - 2 * (codes >> 3))
    return torch.stack([numbers.repeat(16), numbers.repeat_interleave(16)], 1)


def swizzled(block_scales: Tensor) -> Tensor:
    """The order in which the GPU's product reads block scales [rows, columns], with zeros up to whole tiles. In each
    tile of 128 rows and 4 columns, the rows 0, 32, 64 and 96 come first, then 1, 33 and so on (SWIZZLE_32_4_4)."""
    rows, columns = block_scales.shape
    fillers = (0, -columns % TILE_COLUMNS, 0, -rows % TILE_ROWS)
    padded = functional.pad(block_scales.view(torch.uint8), fillers)
    tiles = padded.view(-1, 4, 32, padded.shape[1] // TILE_COLUMNS, TILE_COLUMNS)
    return tiles.permute(0, 3, 2, 1, 4).reshape(-1).view(FLOAT8)
