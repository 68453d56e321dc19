"""Rows in FP8 (E4M3) with one scale each, and the product of such rows and an FP8 weight.

Rows are the input of an FP8 linear. Norms and activations make them if the next linear takes them; otherwise
`engine_svc.models.quantized_linear` makes them from 16-bit rows.

torch has two names for the GPU's own product: `torch._scaled_mm`, in every version, and since 2.10
`torch.nn.functional.scaled_mm`. Both run the same kernels. The first costs the host less. On a GPU without FP8 and on a
CPU, both sides are dequantized, with the same results up to rounding.
"""
# ruff: noqa: SLF001 - torch._scaled_mm has no public name before torch 2.10

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.device import FP8
from engine_svc.models.kernels.launch import runs_kernels

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0

# The GPU's product needs both sides of the weight to be multiples of this.
SIDE_MULTIPLE = 16

# The only output type that every GPU supports for rows with their own scales.
NATIVE_OUTPUT = torch.bfloat16


@dataclass(frozen=True, slots=True)
class Float8Rows:
    """The numbers are values * scales."""

    values: Tensor  # float8_e4m3fn [rows, numbers]
    scales: Tensor  # float32 [rows, 1]

    @property
    def device(self) -> torch.device:
        return self.values.device

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> "Float8Rows":
        return Float8Rows(self.values[rows], self.scales[rows])


# From rows, weight [outputs, inputs], bias and the type of the outputs. A native product takes a bias in NATIVE_OUTPUT.
Product = Callable[[Float8Rows, Float8Rows, Tensor | None, torch.dtype], Tensor]


def takes_float8(layer: object) -> bool:
    """Whether a linear has FP8 weights, and so takes Float8Rows in place of 16-bit rows; or whether a branch of a
    transformer begins with such a linear."""
    return bool(getattr(layer, "takes_float8", False))


@cache
def has_native_float8(device: torch.device) -> bool:
    """Whether the device multiplies FP8 and converts to it."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= FP8


def quantize_to_float8(rows: Tensor) -> Float8Rows:
    """Each row's largest magnitude becomes FLOAT8_MAX. A row of zeros stays zero; NaN and infinity become NaN."""
    if has_native_float8(rows.device) and runs_kernels(rows.device):
        from engine_svc.models.kernels.quantize import quantize_to_float8_by_kernel

        return quantize_to_float8_by_kernel(rows)
    return quantize_to_float8_by_torch(rows)


def quantize_to_float8_by_torch(rows: Tensor) -> Float8Rows:
    largest = rows.abs().amax(-1, keepdim=True).float()
    scales = largest.clamp(min=torch.finfo(torch.float32).tiny) / FLOAT8_MAX
    return Float8Rows((rows.float() / scales).to(FLOAT8), scales)


def dequantize_float8(rows: Float8Rows, dtype: torch.dtype) -> Tensor:
    # E4M3 is exact in every wider type, so only the product with the scale is rounded.
    return rows.values.to(dtype).mul_(rows.scales)


def choose_product(weight: Float8Rows) -> Product:
    outputs, inputs = weight.values.shape
    fits = outputs % SIDE_MULTIPLE == 0 and inputs % SIDE_MULTIPLE == 0
    return choose_native_product() if fits and has_native_float8(weight.values.device) else dequantized_product


def choose_native_product() -> Product:
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
    row_wise = functional.ScalingType.RowWise
    return functional.scaled_mm(
        rows.values,
        weight.values.t(),
        rows.scales,
        row_wise,
        weight.scales.t(),
        row_wise,
        bias=bias,
        output_dtype=NATIVE_OUTPUT,
        use_fast_accum=True,
    ).to(dtype)


def dequantized_product(rows: Float8Rows, weight: Float8Rows, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return functional.linear(dequantize_float8(rows, dtype), dequantize_float8(weight, dtype), bias)
