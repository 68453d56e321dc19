"""Linear layers with the activation that follows: plain, or prepacked on CPUs where oneDNN has fast bf16 or fp16.

In float32 the plain form is faster (MKL's GEMM against oneDNN's, and a faster erf), so only the 16-bit types are
prepacked. Architectures and heads build their layers with `load_linear`, which keeps quantized weights quantized.
"""
# ruff: noqa: SLF001 - PyTorch's oneDNN operations have no public names

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.activations import Activation, apply_activation
from engine_svc.models.lora import add_lora, current_adapter_rows
from engine_svc.models.onednn import has_16_bit_products, round_up_rows
from engine_svc.models.quantized_linear import (
    QuantizedLinear,
    is_quantized,
    load_quantized_rows,
    load_smoothing,
    make_quantized_linear,
)
from engine_svc.models.weights import LoraDeltas, Weights

onednn = torch.ops.mkldnn

Linear = Callable[[Any], Tensor]  # [..., inputs] to [..., outputs]; also from Float8Rows if it `takes_float8`

# Attribute and algorithm of the fused operation. Other activations run after an unfused one.
FUSED = {
    Activation.NONE: ("none", ""),
    Activation.GELU: ("gelu", "none"),
    Activation.GELU_TANH: ("gelu", "tanh"),
}


def make_linear(
    weight: Tensor, bias: Tensor | None, activation: Activation = Activation.NONE
) -> "PlainLinear | PrepackedLinear":
    """The faster form for the weight's device and type. `weight` is [outputs, inputs]."""
    if has_16_bit_products(weight.device, weight.dtype):
        return PrepackedLinear.of(weight, bias, activation)
    return PlainLinear(weight, bias, activation)


def load_linear(
    weights: Weights,
    name: str | Sequence[str],
    outputs: int | Sequence[int],
    inputs: int,
    *,
    bias: bool = True,
    activation: Activation = Activation.NONE,
    dtype: torch.dtype | None = None,
    first_row: int = 0,
) -> Linear:
    """Loads the linear of this name. Several names, each with its number of outputs, are linears on the same input that
    run as one, one below the other. `dtype` overrides the model's. Row `first_row` of the stored weight becomes the
    first output, and the rows before it become the last ones. Raises CheckpointError."""
    names = [name] if isinstance(name, str) else name
    sizes = [outputs] * len(names) if isinstance(outputs, int) else outputs
    parts = list(zip(names, sizes, strict=True))

    def load(kind: str, *columns: int, is_temporary: bool = False) -> Tensor:
        stored = [(f"{part}.{kind}", [size, *columns]) for part, size in parts]
        tensor = weights.load_joined(stored, dtype, is_temporary=is_temporary)
        return tensor.roll(-first_row, 0) if first_row and not tensor.is_meta else tensor

    def load_bias() -> Tensor | None:
        return load("bias") if bias else None

    base: AnyLinear
    if dtype is None and is_quantized(weights, parts, inputs):
        rows = load_quantized_rows(weights, parts, inputs, first_row)
        smoothing = load_smoothing(weights, parts, inputs)
        base = make_quantized_linear(rows, load_bias(), activation, weights.dtype, smoothing)
    else:
        is_copied = has_16_bit_products(weights.device, dtype or weights.dtype)
        base = make_linear(load("weight", inputs, is_temporary=is_copied), load_bias(), activation)
    deltas = weights.load_lora(parts, inputs)
    assert not (deltas and first_row)
    linear: Linear = LoraLinear(base, deltas) if deltas else base
    return linear if dtype is not None or weights.observe is None else weights.observe(names, linear)


def suitable_rows(rows: int, device: torch.device, dtype: torch.dtype) -> int:
    """The number of rows that a batch is best padded to: `rows` or a few more."""
    return round_up_rows(rows) if has_16_bit_products(device, dtype) else rows


@dataclass(frozen=True, slots=True)
class PlainLinear:
    weight: Tensor
    bias: Tensor | None
    activation: Activation

    def __call__(self, inputs: Tensor) -> Tensor:
        return apply_activation(functional.linear(inputs, self.weight, self.bias), self.activation)


@dataclass(frozen=True, slots=True)
class PrepackedLinear:
    """The weight is in oneDNN's own blocked layout; GELU runs in the same pass as the product."""

    packed_weight: Tensor
    bias: Tensor | None
    activation: Activation

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, activation: Activation) -> "PrepackedLinear":
        return cls(onednn._reorder_linear_weight(weight.contiguous()), bias, activation)

    @property
    def is_fused(self) -> bool:
        """Whether the activation is applied before the product is rounded."""
        return self.activation in FUSED and self.activation is not Activation.NONE

    def __call__(self, inputs: Tensor) -> Tensor:
        attribute, algorithm = FUSED.get(self.activation, FUSED[Activation.NONE])
        outputs: Tensor = onednn._linear_pointwise(inputs, self.packed_weight, self.bias, attribute, [], algorithm)
        return outputs if self.activation in FUSED else apply_activation(outputs, self.activation)


AnyLinear = PlainLinear | PrepackedLinear | QuantizedLinear


@dataclass(frozen=True, slots=True)
class LoraLinear:
    """A linear with adapters, whose changes are added before the activation."""

    base: AnyLinear
    deltas: LoraDeltas

    def __call__(self, inputs: Tensor) -> Tensor:
        adapter_rows = current_adapter_rows()
        if adapter_rows is None:
            return self.base(inputs)
        outputs = replace(self.base, activation=Activation.NONE)(inputs)
        add_lora(outputs, inputs, self.deltas)
        outputs = apply_activation(outputs, self.base.activation)
        others = adapter_rows.others
        if isinstance(self.base, PrepackedLinear) and self.base.is_fused and len(others):
            # The fused activation rounds once less. Sequences without an adapter get it in any batch.
            outputs.index_copy_(0, others.long(), self.base(inputs).index_select(0, others))
        return outputs
