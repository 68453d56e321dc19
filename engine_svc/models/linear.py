"""Linear layers, with the activation that follows: plain everywhere, prepacked where oneDNN has fast bf16 or fp16.

In float32 the plain form wins (MKL's GEMM against oneDNN's, and a faster erf), so only the short types are prepacked.
Architectures and heads build their layers with `load_linear`, which keeps the weights quantized where the model is.
"""
# ruff: noqa: SLF001 - PyTorch's oneDNN operations have no public names

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.activations import Activation, activated
from engine_svc.models.low_rank import Changes, adapted_rows, add_changes
from engine_svc.models.quantized_linear import QuantizedLinear, quantized_linear
from engine_svc.models.quantized_weights import is_quantized, load_rows
from engine_svc.models.weights import Weights

onednn = torch.ops.mkldnn

# oneDNN compiles a primitive for each number of rows, in milliseconds, and keeps some thousand: with rows in such
# steps, which grow with them, all of them fit, and few batches are filled up by more than an eighth.
PREPACKED_ROWS_STEP_MIN, PREPACKED_ROWS_STEP_MAX = 8, 32

Linear = Callable[[Any], Tensor]  # [..., inputs] to [..., outputs]; where it `takes_float8`, from Float8Rows too

# Attribute and algorithm of the fused operation; what is not here runs after an unfused one.
FUSED = {
    Activation.NONE: ("none", ""),
    Activation.GELU: ("gelu", "none"),
    Activation.GELU_TANH: ("gelu", "tanh"),
}


def linear(
    weight: Tensor, bias: Tensor | None, activation: Activation = Activation.NONE
) -> "PlainLinear | PrepackedLinear":
    """The faster form for the weight's device and type. `weight` is [outputs, inputs]."""
    if is_prepacked(weight.device, weight.dtype):
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
    """The linear of this name. Several names, each with its number of outputs, are linears on the same input that run
    as one, one below the other. `dtype` overrides the model's. Row `first_row` of the stored weight becomes the first
    output, and the rows before it become the last ones. Raises CheckpointError."""
    names = [name] if isinstance(name, str) else name
    sizes = [outputs] * len(names) if isinstance(outputs, int) else outputs
    parts = list(zip(names, sizes, strict=True))

    def take(kind: str, *columns: int) -> Tensor:
        taken = [weights.take(f"{part}.{kind}", [size, *columns], dtype) for part, size in parts]
        tensor = taken[0] if len(taken) == 1 else torch.cat(taken)
        return tensor.roll(-first_row, 0) if first_row else tensor

    is_rows = dtype is None and is_quantized(weights, parts, inputs)
    weight = load_rows(weights, parts, inputs, first_row) if is_rows else take("weight", inputs)
    biases = take("bias") if bias else None
    if isinstance(weight, Tensor):
        plain: AnyLinear = linear(weight, biases, activation)
    else:
        plain = quantized_linear(weight, biases, activation, weights.dtype)
    changes = weights.changes_of(parts, inputs)
    assert not (changes and first_row)
    return AdaptedLinear(plain, changes) if changes else plain


@cache
def is_prepacked(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(onednn._is_mkldnn_bf16_supported())
    return dtype == torch.float16 and bool(onednn._is_mkldnn_fp16_supported())


def suitable_rows(rows: int, device: torch.device, dtype: torch.dtype) -> int:
    """So many rows or a few more, up to a number that a batch is best filled up to."""
    if not is_prepacked(device, dtype):
        return rows
    eighth = 1 << max(0, (rows - 1).bit_length() - 3)
    step = min(max(eighth, PREPACKED_ROWS_STEP_MIN), PREPACKED_ROWS_STEP_MAX)
    return -rows % step + rows


@dataclass(frozen=True, slots=True)
class PlainLinear:
    weight: Tensor
    bias: Tensor | None
    activation: Activation

    def __call__(self, inputs: Tensor) -> Tensor:
        return activated(functional.linear(inputs, self.weight, self.bias), self.activation)


@dataclass(frozen=True, slots=True)
class PrepackedLinear:
    """Weight in oneDNN's own blocked layout; GELU in the same pass as the product."""

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
        return outputs if self.activation in FUSED else activated(outputs, self.activation)


AnyLinear = PlainLinear | PrepackedLinear | QuantizedLinear


@dataclass(frozen=True, slots=True)
class AdaptedLinear:
    """A linear with adapters, whose changes are added before the activation."""

    plain: AnyLinear
    changes: Changes

    def __call__(self, inputs: Tensor) -> Tensor:
        adapted = adapted_rows()
        if adapted is None:
            return self.plain(inputs)
        outputs = replace(self.plain, activation=Activation.NONE)(inputs)
        add_changes(outputs, inputs, self.changes)
        outputs = activated(outputs, self.plain.activation)
        if isinstance(self.plain, PrepackedLinear) and self.plain.is_fused and len(adapted.others):
            # Rounded once less: their sequences should not tell whom they share the batch with.
            outputs.index_copy_(0, adapted.others.long(), self.plain(inputs).index_select(0, adapted.others))
        return outputs
