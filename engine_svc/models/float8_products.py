"""The product of FP8 rows and an FP8 weight. `engine_svc.models.quantized_linear` chooses one for each linear.

torch has two names for the GPU's own product: `torch._scaled_mm`, in every version, and since 2.10
`torch.nn.functional.scaled_mm`. Both run the same kernels. The first costs the host less. On a GPU without FP8 and on a
CPU, both sides are widened, with the same results up to rounding.
"""
# ruff: noqa: SLF001 - torch._scaled_mm has no public name before torch 2.10

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.float8 import Float8Rows, has_native_float8

# The GPU's product needs both sides of the weight to be multiples of this.
SIDE_MULTIPLE = 16

# The only output type that every GPU supports for rows with their own scales.
NATIVE_OUTPUT = torch.bfloat16

# From rows, weight [outputs, inputs], bias and the type of the outputs. A native product takes a bias in NATIVE_OUTPUT.
Product = Callable[[Float8Rows, Float8Rows, Tensor | None, torch.dtype], Tensor]


def product_for(weight: Float8Rows) -> Product:
    outputs, inputs = weight.values.shape
    fits = outputs % SIDE_MULTIPLE == 0 and inputs % SIDE_MULTIPLE == 0
    return native_product() if fits and has_native_float8(weight.values.device) else widened_product


def native_product() -> Product:
    """The one that costs the host less, if torch has it. `python -m tests.gpu` measures both."""
    return private_product if hasattr(torch, "_scaled_mm") else public_product


def private_product(rows: Float8Rows, weight: Float8Rows, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return torch._scaled_mm(
        rows.values,
        weight.values.t(),
        rows.scales,
        weight.scales.t(),
        bias=bias,
        out_dtype=NATIVE_OUTPUT,
        use_fast_accum=True,
    ).to(dtype)


def public_product(rows: Float8Rows, weight: Float8Rows, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    by_row = functional.ScalingType.RowWise
    return functional.scaled_mm(
        rows.values,
        weight.values.t(),
        rows.scales,
        by_row,
        weight.scales.t(),
        by_row,
        bias=bias,
        output_dtype=NATIVE_OUTPUT,
        use_fast_accum=True,
    ).to(dtype)


def widened_product(rows: Float8Rows, weight: Float8Rows, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return functional.linear(widened(rows, dtype), widened(weight, dtype), bias)


def widened(rows: Float8Rows, dtype: torch.dtype) -> Tensor:
    # E4M3 is exact in every wider type, so only the product with the scale is rounded.
    return rows.values.to(dtype).mul_(rows.scales)
