"""Stand-ins for the GPU's products of quantized matrices. They compute on a CPU, take the arguments of torch 2.11, and
refuse what the GPU refuses (aten/src/ATen/native/cuda/ScaledBlas.cpp)."""
# ruff: noqa: PLR0917 - the signatures are those of torch

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import ScalingType, SwizzleType

from engine_svc.models.float4 import Float4Rows, dequantize_float4, make_byte_table


class GpuError(Exception):
    pass


def check(condition: bool, message: str) -> None:
    if not condition:
        raise GpuError(message)


def scaled_mm_private(
    self: Tensor,
    mat2: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None = None,
    scale_result: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
) -> Tensor:
    check(scale_result is None, "scale_result is for outputs in FP8")
    check(use_fast_accum, "slow accumulation")
    return by_row(self, mat2, scale_a, scale_b, bias, out_dtype)


def scaled_mm_public(
    mat_a: Tensor,
    mat_b: Tensor,
    scale_a: Tensor,
    scale_recipe_a: ScalingType,
    scale_b: Tensor,
    scale_recipe_b: ScalingType,
    swizzle_a: SwizzleType | None = None,
    swizzle_b: SwizzleType | None = None,
    bias: Tensor | None = None,
    output_dtype: torch.dtype | None = torch.bfloat16,
    contraction_dim: Any = (),
    use_fast_accum: bool = False,
) -> Tensor:
    check(contraction_dim == (), "not needed")
    recipes = {scale_recipe_a, scale_recipe_b}
    if recipes == {ScalingType.RowWise}:
        check(use_fast_accum and swizzle_a is None and swizzle_b is None, "not for rows")
        return by_row(mat_a, mat_b, scale_a, scale_b, bias, output_dtype)
    check(recipes == {ScalingType.BlockWise1x16}, "no such recipe")
    check(swizzle_a is SwizzleType.SWIZZLE_32_4_4 and swizzle_b is SwizzleType.SWIZZLE_32_4_4, "not swizzle")
    check(not use_fast_accum and bias is None, "not with FP4")
    return by_block(mat_a, mat_b, scale_a, scale_b, output_dtype)


def check_layout(rows: Tensor, columns: Tensor) -> None:
    check(rows.dim() == 2 and columns.dim() == 2 and rows.shape[1] == columns.shape[0], "shapes")
    check(rows.stride(0) > rows.stride(1) == 1, f"self must be row_major, got stride {rows.stride()}")
    check(columns.stride(0) == 1 < columns.stride(1), f"mat2 must be col_major, got stride {columns.stride()}")


def by_row(
    rows: Tensor, columns: Tensor, row_scales: Tensor, column_scales: Tensor, bias: Tensor | None, dtype: Any
) -> Tensor:
    check(rows.dtype == columns.dtype == torch.float8_e4m3fn, "not FP8")
    check_layout(rows, columns)
    check(not any(side % 16 for side in columns.shape), f"mat2 shape {columns.shape} must be divisible by 16")
    check(row_scales.dtype == column_scales.dtype == torch.float32, "scales must be float32")
    check(row_scales.shape == (len(rows), 1) and column_scales.shape == (1, columns.shape[1]), "shapes of scales")
    check(row_scales.is_contiguous() and column_scales.is_contiguous(), "scales must be contiguous")
    check(dtype == torch.bfloat16, "Only bf16 high precision output types are supported for row-wise scaling")
    product = rows.float() @ columns.float() * row_scales * column_scales
    if bias is not None:
        check(bias.dtype == dtype and bias.numel() == columns.shape[1], "bias")
        product += bias.float()
    return product.to(dtype)


def by_block(rows: Tensor, columns: Tensor, row_scales: Tensor, column_scales: Tensor, dtype: Any) -> Tensor:
    check(rows.dtype == columns.dtype == torch.float4_e2m1fn_x2, "not FP4")
    check_layout(rows, columns)
    check(not any(side % 16 for side in columns.shape), f"mat2 shape {columns.shape} must be divisible by 16")
    check(dtype == torch.bfloat16, "bfloat16 only")
    product = values(rows, row_scales) @ values(columns.t(), column_scales).t()
    return product.to(dtype)


def values(rows: Tensor, swizzled_scales: Tensor) -> Tensor:
    """Undoes the swizzling by the offset of each scale."""
    count, blocks = len(rows), rows.shape[1] // 8
    tiles_across = -(-blocks // 4)
    check(swizzled_scales.dtype == torch.float8_e4m3fn and swizzled_scales.is_contiguous(), "scales")
    check(swizzled_scales.numel() == -(-count // 128) * tiles_across * 512, "number of scales")
    row, column = torch.arange(count)[:, None], torch.arange(blocks)[None, :]
    tile = row // 128 * tiles_across + column // 4
    offset = tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + column % 4
    scales = swizzled_scales.view(torch.uint8)[offset].view(torch.float8_e4m3fn)
    float4 = Float4Rows(rows.view(torch.uint8), scales, torch.ones(count, 1))
    return dequantize_float4(float4, make_byte_table(torch.float32, rows.device))


def install(monkeypatch: Any) -> None:
    """Every linear that is built from now on takes the GPU's products."""
    monkeypatch.setattr(torch, "_scaled_mm", scaled_mm_private)
    monkeypatch.setattr(functional, "scaled_mm", scaled_mm_public)
    monkeypatch.setattr("engine_svc.models.float8.has_native_float8", lambda _: True)
    monkeypatch.setattr("engine_svc.models.quantized_linear.has_native_float4", lambda _: True)
