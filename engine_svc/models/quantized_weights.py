"""Loads the weights of a linear as FP8 or FP4 rows. Either quantizes them on the device while it reads them, a block of
rows at a time, or takes them as ModelOpt stored them. `load_linear` calls this.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from engine_svc.models.float4 import BLOCK, Float4Rows, fit_to_float4
from engine_svc.models.float8 import FLOAT8, Float8Rows, quantize_rows
from engine_svc.models.quantization import Format
from engine_svc.models.weights import Weights
from heddle.checkpoint.json_files import CheckpointError

Parts = Sequence[tuple[str, int]]  # names of linears on the same inputs, and their numbers of outputs

# ModelOpt's names of the tensors of a linear, in the order of the fields of Float8Rows and Float4Rows.
STORED_NAMES = {
    Format.FP8: ("weight", "weight_scale"),
    Format.FP4: ("weight", "weight_scale", "weight_scale_2"),
}


def is_quantized(weights: Weights, parts: Parts, inputs: int) -> bool:
    """Whether these linears are stored quantized, or are quantized while they are read. Raises CheckpointError if that
    is true of some of `parts` only."""
    quantization = weights.quantization
    if quantization is None:
        return False
    if not quantization.is_stored:
        return quantization.format is Format.FP8 or inputs % BLOCK == 0
    found = {weights.has(f"{name}.weight_scale") for name, _ in parts}
    if len(found) > 1:
        names = ", ".join(name for name, _ in parts)
        raise CheckpointError(f"{weights.folder}: only some of {names} are quantized, which is not supported")
    return found.pop()


def load_rows(weights: Weights, parts: Parts, inputs: int, first_row: int) -> Float8Rows | Float4Rows:
    """The weights of all parts, one below the other, then rotated so that `first_row` comes first."""
    quantization = weights.quantization
    assert quantization is not None
    rows = empty_rows(quantization.format, sum(size for _, size in parts), inputs, weights.device)
    start = 0
    for name, size in parts:
        columns = [column[start : start + size] for column in columns_of(rows)]
        if quantization.is_stored:
            read_part(weights, name, STORED_NAMES[quantization.format], columns)
        else:
            quantize_part(weights, name, [size, inputs], quantization.format, columns)
        start += size
    return type(rows)(*(turned(column, first_row) for column in columns_of(rows)))


def empty_rows(format_: Format, rows: int, inputs: int, device: torch.device) -> Float8Rows | Float4Rows:
    scales = torch.empty(rows, 1, dtype=torch.float32, device=device)
    if format_ is Format.FP8:
        return Float8Rows(torch.empty(rows, inputs, dtype=FLOAT8, device=device), scales)
    packed = torch.empty(rows, inputs // 2, dtype=torch.uint8, device=device)
    return Float4Rows(packed, torch.empty(rows, inputs // BLOCK, dtype=FLOAT8, device=device), scales)


def columns_of(rows: Float8Rows | Float4Rows) -> Sequence[Tensor]:
    return [getattr(rows, field.name) for field in dataclasses.fields(rows)]


def quantize_part(
    weights: Weights, name: str, shape: Sequence[int], format_: Format, columns: Sequence[Tensor]
) -> None:
    quantize = quantize_rows if format_ is Format.FP8 else fit_to_float4
    for place, block in weights.row_blocks(f"{name}.weight", shape):
        for column, quantized in zip(columns, columns_of(quantize(block.to(weights.device))), strict=True):
            column[place] = quantized


def read_part(weights: Weights, name: str, stored_names: Sequence[str], columns: Sequence[Tensor]) -> None:
    for stored_name, column in zip(stored_names, columns, strict=True):
        if column.dtype == torch.float32:
            column.copy_(weights.take_scales(f"{name}.{stored_name}", len(column)))
            continue
        for place, block in weights.row_blocks(f"{name}.{stored_name}", column.shape, column.dtype):
            column[place] = block


def turned(column: Tensor, first_row: int) -> Tensor:
    if not first_row:
        return column
    return column.view(torch.uint8).roll(-first_row, 0).view(column.dtype)
