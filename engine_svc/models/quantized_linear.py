"""Linears whose weights stay in FP8, FP4 or int8 in memory. `load_linear` builds them for a quantized transformer.

FP8 (E4M3) has one scale for each output of the weight and one for each row of the inputs, so a row has the same outputs
in any batch. The one scale for all inputs that ModelOpt's FP8 checkpoints have (`input_scale`) is not used: it was
measured on other texts. FP4 (NVFP4) weights are dequantized for each product. If the GPU multiplies FP4, they stay as
they are, and the inputs are quantized too, each row by itself. For int8, see `engine_svc.models.int8`.

Weights are quantized on the device while they are read, a block of rows at a time, or read as ModelOpt stored them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.device import FP4
from engine_svc.models.activations import Activation, apply_activation
from engine_svc.models.float4 import (
    BLOCK,
    Float4Rows,
    compute_shared_scale,
    dequantize_float4,
    fit_to_float4,
    make_byte_table,
    quantize_to_float4,
    swizzle,
)
from engine_svc.models.float8 import (
    FLOAT8,
    NATIVE_OUTPUT,
    Float8Rows,
    Product,
    choose_product,
    dequantized_product,
    quantize_to_float8,
)
from engine_svc.models.int8 import Int8, Int8Rows, dequantize_int8, make_int8_linear, quantize_to_int8
from engine_svc.models.kernels.launch import runs_kernels
from engine_svc.models.quantization import Format
from engine_svc.models.weights import Weights
from heddle.checkpoint.json_files import CheckpointError

# The GPU's product needs inputs and outputs in multiples of these.
FLOAT4_INPUTS_MULTIPLE, FLOAT4_OUTPUTS_MULTIPLE = 32, 16

Parts = Sequence[tuple[str, int]]  # names of linears on the same inputs, and their numbers of outputs

Rows = Float8Rows | Float4Rows | Int8Rows

# ModelOpt's names of the tensors of a linear, in the order of the fields of the rows.
STORED_NAMES = {
    Format.FP8: ("weight", "weight_scale"),
    Format.FP4: ("weight", "weight_scale", "weight_scale_2"),
    Format.INT8: ("weight", "weight_scale"),
}
# What ModelOpt's `TensorQuantizer.forward` multiplies the inputs of a linear by, before it quantizes them.
PRE_QUANT_SCALE = "pre_quant_scale"

QUANTIZE: Mapping[Format, Callable[[Tensor], Rows]] = {
    Format.FP8: quantize_to_float8,
    Format.INT8: quantize_to_int8,
}


@dataclass(frozen=True, slots=True)
class Float8Linear:
    weight: Float8Rows  # [outputs, inputs]
    bias: Tensor | None  # in `dtype`, for a native product in bfloat16
    activation: Activation
    dtype: torch.dtype  # of the outputs
    product: Product

    @classmethod
    def of(cls, weight: Float8Rows, bias: Tensor | None, activation: Activation, dtype: torch.dtype) -> "Float8Linear":
        product = choose_product(weight)
        if bias is not None and product is not dequantized_product:
            bias = bias.to(NATIVE_OUTPUT)
        return cls(weight, bias, activation, dtype, product)

    @property
    def takes_float8(self) -> bool:
        """Whether the operation before it should make Float8Rows. A GPU without FP8 has no kernels for that."""
        return self.product is not dequantized_product

    def __call__(self, inputs: Tensor | Float8Rows) -> Tensor:
        rows = inputs if isinstance(inputs, Float8Rows) else quantize_to_float8(inputs)
        return apply_activation(self.product(rows, self.weight, self.bias, self.dtype), self.activation)


@dataclass(frozen=True, slots=True)
class Float4Linear:
    """Dequantizes its weight for each product."""

    weight: Float4Rows  # [outputs, inputs]
    bias: Tensor | None
    activation: Activation
    byte_table: Tensor  # from `make_byte_table`, in the type of the outputs

    def __call__(self, inputs: Tensor) -> Tensor:
        return apply_activation(functional.linear(inputs, self._dequantize(), self.bias), self.activation)

    def _dequantize(self) -> Tensor:
        if not runs_kernels(self.weight.packed.device):
            return dequantize_float4(self.weight, self.byte_table)
        from engine_svc.models.kernels.quantize import dequantize_float4_by_kernel

        return dequantize_float4_by_kernel(self.weight, self.byte_table.dtype)


@dataclass(frozen=True, slots=True)
class NativeFloat4Linear:
    """The GPU multiplies FP4. Its product applies the block scales; those of rows and outputs are applied here."""

    packed: Tensor  # uint8 [outputs, inputs / 2]
    block_scales: Tensor  # in the order that `swizzle` makes
    scales: Tensor  # float32 [1, outputs]
    bias: Tensor | None
    activation: Activation

    @classmethod
    def of(cls, weight: Float4Rows, bias: Tensor | None, activation: Activation) -> "NativeFloat4Linear":
        return cls(weight.packed, swizzle(weight.block_scales), weight.scales.t(), bias, activation)

    def __call__(self, inputs: Tensor) -> Tensor:
        rows = quantize_to_float4(inputs)
        blockwise, swizzle_type = functional.ScalingType.BlockWise1x16, functional.SwizzleType.SWIZZLE_32_4_4
        product = functional.scaled_mm(
            rows.packed.view(torch.float4_e2m1fn_x2),
            self.packed.view(torch.float4_e2m1fn_x2).t(),
            swizzle(rows.block_scales),
            blockwise,
            self.block_scales,
            blockwise,
            swizzle_a=swizzle_type,
            swizzle_b=swizzle_type,
            output_dtype=NATIVE_OUTPUT,
        )
        outputs = product.mul_(rows.scales).mul_(self.scales)
        if self.bias is not None:
            outputs += self.bias
        return apply_activation(outputs.to(inputs.dtype), self.activation)


QuantizedLinear = Float8Linear | Float4Linear | NativeFloat4Linear | Int8


@cache
def has_native_float4(device: torch.device) -> bool:
    if device.type != "cuda" or not hasattr(functional, "scaled_mm"):
        return False
    return torch.cuda.get_device_capability(device) >= FP4


def make_quantized_linear(
    weight: Rows, bias: Tensor | None, activation: Activation, dtype: torch.dtype, smoothing: Tensor | None = None
) -> QuantizedLinear:
    """The fastest form for the weight's device and size. `weight` is [outputs, inputs]; the outputs are in `dtype`.
    `smoothing` [inputs] multiplies the inputs of a weight in int8."""
    if isinstance(weight, Int8Rows):
        return make_int8_linear(weight, bias, activation, smoothing)
    assert smoothing is None
    if isinstance(weight, Float8Rows):
        return Float8Linear.of(weight, bias, activation, dtype)
    outputs, pairs = weight.packed.shape
    fits = outputs % FLOAT4_OUTPUTS_MULTIPLE == 0 and 2 * pairs % FLOAT4_INPUTS_MULTIPLE == 0
    if fits and has_native_float4(weight.packed.device):
        return NativeFloat4Linear.of(weight, bias, activation)
    return Float4Linear(weight, bias, activation, make_byte_table(dtype, weight.packed.device))


def is_quantized(weights: Weights, parts: Parts, inputs: int) -> bool:
    """Whether these linears are stored quantized, or are quantized while they are read. Raises CheckpointError if that
    is true of some of `parts` only, or if the checkpoint says something else of them."""
    quantization = weights.quantization
    if quantization is None:
        return False
    if not quantization.is_stored:
        is_excluded = any(quantization.excludes(name) for name, _ in parts)
        return not is_excluded and (quantization.format is not Format.FP4 or inputs % BLOCK == 0)
    found = {weights.has(f"{name}.weight_scale") for name, _ in parts}
    names = ", ".join(name for name, _ in parts)
    if len(found) > 1:
        raise CheckpointError(f"{weights.folder}: only some of {names} are quantized, which is not supported")
    is_stored_quantized = found.pop()
    if is_stored_quantized and any(quantization.excludes(name, weights.prefix) for name, _ in parts):
        reason = "attention should not be quantized" if quantization.mlp_only else f"{quantization.path} excludes that"
        raise CheckpointError(f"{weights.folder}: {names} is quantized, but {reason}")
    return is_stored_quantized


def load_quantized_rows(weights: Weights, parts: Parts, inputs: int, first_row: int = 0) -> Rows:
    """The weights of all parts, one below the other, then rolled so that `first_row` comes first."""
    quantization = weights.quantization
    assert quantization is not None
    rows = empty_rows(quantization.format, sum(size for _, size in parts), inputs, weights.device)
    quantize = None if quantization.is_stored else choose_quantize(weights, parts, inputs, quantization.format)
    start = 0
    for name, size in parts:
        columns = [column[start : start + size] for column in list_columns(rows)]
        if quantize is None:
            read_part(weights, name, STORED_NAMES[quantization.format], columns)
        else:
            quantize_part(weights, name, [size, inputs], quantize, columns)
        start += size
    return type(rows)(*(roll_rows(column, first_row) for column in list_columns(rows)))


def load_smoothing(weights: Weights, parts: Parts, inputs: int) -> Tensor | None:
    """[inputs], or None for linears without one. ModelOpt's `preprocess_linear_fusion` gives linears on the same inputs
    the same."""
    quantization = weights.quantization
    assert quantization is not None
    names = [f"{name}.{PRE_QUANT_SCALE}" for name, _ in parts if weights.has(f"{name}.{PRE_QUANT_SCALE}")]
    if not quantization.is_stored or not names:
        return None
    if quantization.format is not Format.INT8:
        raise CheckpointError(f"{weights.folder}: {names[0]} is supported only with weights in int8")
    scales = [weights.load(name, [inputs]) for name in names]
    is_meta = weights.device.type == "meta"
    if len(names) < len(parts) or not (is_meta or all(torch.equal(scales[0], other) for other in scales[1:])):
        raise CheckpointError(f"{weights.folder}: {names[0]} differs from that of a linear on the same inputs")
    return scales[0]


def load_dequantized(weights: Weights, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The weight of one linear, however it is stored, for a product that is not computed with the others."""
    parts = [(name, shape[0])]
    quantization = weights.quantization
    if quantization is None or quantization.format is not Format.INT8 or not is_quantized(weights, parts, shape[1]):
        return weights.load(f"{name}.weight", shape, dtype)
    rows = load_quantized_rows(weights, parts, shape[1])
    assert isinstance(rows, Int8Rows)
    smoothing = load_smoothing(weights, parts, shape[1])
    weight = dequantize_int8(rows, dtype)
    return weight if smoothing is None else weight * smoothing.to(dtype)


def empty_rows(format_: Format, rows: int, inputs: int, device: torch.device) -> Rows:
    scales = torch.empty(rows, 1, dtype=torch.float32, device=device)
    if format_ is Format.FP8:
        return Float8Rows(torch.empty(rows, inputs, dtype=FLOAT8, device=device), scales)
    if format_ is Format.INT8:
        return Int8Rows(torch.empty(rows, inputs, dtype=torch.int8, device=device), scales)
    packed = torch.empty(rows, inputs // 2, dtype=torch.uint8, device=device)
    return Float4Rows(packed, torch.empty(rows, inputs // BLOCK, dtype=FLOAT8, device=device), scales)


def list_columns(rows: Rows) -> Sequence[Tensor]:
    return [getattr(rows, field.name) for field in dataclasses.fields(rows)]


def choose_quantize(weights: Weights, parts: Parts, inputs: int, format_: Format) -> Callable[[Tensor], Rows]:
    """In FP4 all parts share a scale, as in a build, so their largest magnitude is looked for first."""
    if format_ is not Format.FP4:
        return QUANTIZE[format_]
    largest = torch.zeros(1, 1, device=weights.device)
    for name, size in parts:
        for _, block in weights.read_blocks(f"{name}.weight", [size, inputs]):
            largest = largest.maximum(block.to(weights.device).abs().amax())
    return partial(fit_to_float4, scales=compute_shared_scale(largest))


def quantize_part(
    weights: Weights, name: str, shape: Sequence[int], quantize: Callable[[Tensor], Rows], columns: Sequence[Tensor]
) -> None:
    for place, block in weights.read_blocks(f"{name}.weight", shape):
        for column, quantized in zip(columns, list_columns(quantize(block.to(weights.device))), strict=True):
            column[place] = quantized


def read_part(weights: Weights, name: str, stored_names: Sequence[str], columns: Sequence[Tensor]) -> None:
    for stored_name, column in zip(stored_names, columns, strict=True):
        if column.dtype == torch.float32:
            column.copy_(weights.load_scales(f"{name}.{stored_name}", len(column)))
            continue
        for place, block in weights.read_blocks(f"{name}.{stored_name}", column.shape, column.dtype):
            column[place] = block


def roll_rows(column: Tensor, first_row: int) -> Tensor:
    if not first_row or column.is_meta:
        return column
    return column.view(torch.uint8).roll(-first_row, 0).view(column.dtype)
