"""Widens FP4 weights in one pass over them; PyTorch's own operations need many. `Float4Linear` calls it for each
product on GPUs that do not multiply FP4."""

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine_svc.models.float4 import BLOCK, Float4Rows, fit_to_float4, pairs_of_bytes, widened
from engine_svc.models.kernels.kernel import Kernel

BYTES_OF_PROGRAM = 1024
BLOCK_BYTES = tl.constexpr(BLOCK // 2)
# The difference of the exponent biases of float32 and E4M3, shifted to the exponent's bits.
E4M3_TO_FLOAT32 = tl.constexpr((127 - 7) << 23)
E4M3_SMALLEST = tl.constexpr(2.0**-9)


@triton.jit
def number_of(code: tl.tensor) -> tl.tensor:
    """E2M1 as float32, from four bits."""
    place = (code & 7).to(tl.float32)
    magnitude = tl.where(place < 4, place * 0.5, tl.where(place < 6, place - 2.0, place * 2.0 - 8.0))
    return tl.where(code > 7, -magnitude, magnitude)


@triton.jit
def scale_of(byte: tl.tensor) -> tl.tensor:
    """E4M3 as float32, without the sign, which scales do not have. Triton has the type only on GPUs that have it."""
    bits = byte.to(tl.int32)
    normal = ((bits << 20) + E4M3_TO_FLOAT32).to(tl.float32, bitcast=True)
    return tl.where(bits < 8, bits.to(tl.float32) * E4M3_SMALLEST, normal)


@triton.jit(do_not_specialize=["count"])
def widen_kernel(
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
    block_scale = scale_of(tl.load(block_scales + place // BLOCK_BYTES, is_inside, other=0))
    scale = block_scale * tl.load(scales + place // WIDTH, is_inside, other=0.0)
    values = tl.interleave(number_of(byte & 15) * scale, number_of(byte >> 4) * scale)
    both = tl.program_id(0).to(tl.int64) * (2 * SIZE) + tl.arange(0, 2 * SIZE)
    tl.store(result + both, values.to(result.dtype.element_ty), both < 2 * count)


def widen(rows: Float4Rows, dtype: torch.dtype) -> Tensor:
    """[rows, numbers] in `dtype`."""
    count, width = rows.packed.shape
    result = torch.empty(count, 2 * width, dtype=dtype, device=rows.packed.device)
    programs = triton.cdiv(rows.packed.numel(), BYTES_OF_PROGRAM)
    block_scales = rows.block_scales.view(torch.uint8)
    widen_kernel[(programs,)](
        *(rows.packed, block_scales, rows.scales, result, rows.packed.numel(), width, BYTES_OF_PROGRAM), num_warps=4
    )
    return result


def example(device: torch.device, dtype: torch.dtype) -> tuple[Float4Rows, torch.dtype]:
    weight = torch.randn((4096, 4096) if device.type == "cuda" else (5, 96), device=device)
    weight[0] *= torch.logspace(-6, 0, weight.shape[1], device=device)  # some scales are not normal numbers
    return fit_to_float4(weight), dtype


KERNELS: Mapping[str, Kernel] = {
    "FP4 weights to 16 bit": Kernel(
        widen, lambda rows, dtype: widened(rows, pairs_of_bytes(dtype, rows.packed.device)), example
    )
}
