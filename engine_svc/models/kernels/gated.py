"""The activation of a gated feed-forward, act(gate) * up, in 16 bit or quantized to FP8.
`engine_svc.models.transformer` calls it."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine_svc.models.activations import Activation
from engine_svc.models.float8 import Float8Rows
from engine_svc.models.kernels.launch import choose_tile
from engine_svc.models.kernels.quantize import empty_float8, quantize_values

# The widest tile without quantization. Most intermediate sizes are multiples of it.
COLUMNS_MAX = 1024

TWICE_ROOT_OF_2_BY_PI = tl.constexpr(1.5957691216057308)
ROOT_OF_HALF = tl.constexpr(0.7071067811865476)


@triton.jit
def activate(values: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    if ACTIVATION == "silu":
        result = values * tl.sigmoid(values)
    elif ACTIVATION == "gelu":
        result = 0.5 * values * (1.0 + tl.erf(values * ROOT_OF_HALF))
    elif ACTIVATION == "gelu_tanh":  # 1 + tanh(x) is 2 * sigmoid(2 * x)
        result = values * tl.sigmoid(TWICE_ROOT_OF_2_BY_PI * (values + 0.044715 * values * values * values))
    elif ACTIVATION == "relu":
        result = tl.where(values < 0.0, 0.0, values)  # a maximum would lose NaN
    elif ACTIVATION == "tanh":
        result = 2.0 * tl.sigmoid(2.0 * values) - 1.0
    else:
        tl.static_assert(ACTIVATION == "none")
        result = values
    return result


@triton.jit(do_not_specialize=["rows"])
def gate_kernel(
    gate_up: tl.tensor,
    result: tl.tensor,
    scales: tl.tensor | None,
    rows: tl.tensor,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ACTIVATION: tl.constexpr,
) -> None:
    """With `scales`, a program must compute whole rows, because a scale depends on the largest number of the row."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    is_inside = (row < rows) & (column < WIDTH)
    place = gate_up + row.to(tl.int64) * (2 * WIDTH) + column
    gate = tl.load(place, is_inside, other=0.0).to(tl.float32)
    up = tl.load(place + WIDTH, is_inside, other=0.0).to(tl.float32)
    values = activate(gate, ACTIVATION) * up
    target = result + row.to(tl.int64) * WIDTH + column
    if scales is not None:
        value, scale = quantize_values(values)
        tl.store(target, value, is_inside)
        tl.store(scales + row, scale, row < rows)
    else:
        tl.store(target, values.to(result.dtype.element_ty), is_inside)


def activate_gate(gate_up: Tensor, activation: Activation) -> Tensor:
    """Turns [rows, 2 * intermediate], contiguous, into [rows, intermediate] of the same type."""
    result = torch.empty(len(gate_up), gate_up.shape[1] // 2, dtype=gate_up.dtype, device=gate_up.device)
    launch(gate_up, activation, result, None, min(result.shape[1], COLUMNS_MAX))
    return result


def activate_gate_to_float8(gate_up: Tensor, activation: Activation) -> Float8Rows:
    result = empty_float8(torch.Size([len(gate_up), gate_up.shape[1] // 2]), gate_up.device)
    launch(gate_up, activation, result.values, result.scales, result.values.shape[1])
    return result


def launch(gate_up: Tensor, activation: Activation, result: Tensor, scales: Tensor | None, columns: int) -> None:
    """A program computes `columns` of a row."""
    rows, width = result.shape
    tile = choose_tile(columns)
    gate_kernel[tile.num_programs(rows), triton.cdiv(width, tile.columns)](
        *(gate_up, result, scales, rows, width, tile.rows, tile.columns, activation.value), num_warps=tile.warps
    )
