"""Linears whose weights stay in FP8 or FP4 in memory. `load_linear` builds them for a quantized transformer.

FP8 (E4M3) has one scale for each output of the weight and one for each row of the inputs, so a row has the same outputs
in any batch. The one scale for all inputs that ModelOpt's FP8 checkpoints have (`input_scale`) is not used: it was
measured on other texts. FP4 (NVFP4) weights are widened for each product. If the GPU multiplies FP4, they stay as they
are, and the inputs are quantized too, each row by itself.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.device import FP4
from engine_svc.models.activations import Activation, activated
from engine_svc.models.float4 import Float4Rows, pairs_of_bytes, quantize_to_float4, swizzled
from engine_svc.models.float4 import widened as widened_float4
from engine_svc.models.float8 import Float8Rows, quantize_rows
from engine_svc.models.float8_products import NATIVE_OUTPUT, Product, product_for, widened_product
from engine_svc.models.kernels.available import runs_kernels

# The GPU's product needs inputs and outputs in multiples of these.
FLOAT4_INPUTS_MULTIPLE, FLOAT4_OUTPUTS_MULTIPLE = 32, 16


@dataclass(frozen=True, slots=True)
class Float8Linear:
    weight: Float8Rows  # [outputs, inputs]
    bias: Tensor | None  # in `dtype`, for a native product in bfloat16
    activation: Activation
    dtype: torch.dtype  # of the outputs
    product: Product

    @classmethod
    def of(cls, weight: Float8Rows, bias: Tensor | None, activation: Activation, dtype: torch.dtype) -> "Float8Linear":
        product = product_for(weight)
        if bias is not None and product is not widened_product:
            bias = bias.to(NATIVE_OUTPUT)
        return cls(weight, bias, activation, dtype, product)

    @property
    def takes_float8(self) -> bool:
        """Whether the operation before it should make Float8Rows. A GPU without FP8 has no kernels for that."""
        return self.product is not widened_product

    def __call__(self, inputs: Tensor | Float8Rows) -> Tensor:
        rows = inputs if isinstance(inputs, Float8Rows) else quantize_rows(inputs)
        return activated(self.product(rows, self.weight, self.bias, self.dtype), self.activation)


@dataclass(frozen=True, slots=True)
class Float4Linear:
    """Widens its weight for each product."""

    weight: Float4Rows  # [outputs, inputs]
    bias: Tensor | None
    activation: Activation
    pairs: Tensor  # those of `pairs_of_bytes`, in the type of the outputs

    def __call__(self, inputs: Tensor) -> Tensor:
        return activated(functional.linear(inputs, self._widened(), self.bias), self.activation)

    def _widened(self) -> Tensor:
        if not runs_kernels(self.weight.packed.device):
            return widened_float4(self.weight, self.pairs)
        from engine_svc.models.kernels.widen import widen

        return widen(self.weight, self.pairs.dtype)


@dataclass(frozen=True, slots=True)
class NativeFloat4Linear:
    """The GPU multiplies FP4. Its product applies the block scales; those of rows and outputs are applied here."""

    packed: Tensor  # uint8 [outputs, inputs / 2]
    block_scales: Tensor  # in the order of `swizzled`
    scales: Tensor  # float32 [1, outputs]
    bias: Tensor | None
    activation: Activation

    @classmethod
    def of(cls, weight: Float4Rows, bias: Tensor | None, activation: Activation) -> "NativeFloat4Linear":
        return cls(weight.packed, swizzled(weight.block_scales), weight.scales.t(), bias, activation)

    def __call__(self, inputs: Tensor) -> Tensor:
        rows = quantize_to_float4(inputs)
        blockwise, swizzle = functional.ScalingType.BlockWise1x16, functional.SwizzleType.SWIZZLE_32_4_4
        product = functional.scaled_mm(
            rows.packed.view(torch.float4_e2m1fn_x2),
            self.packed.view(torch.float4_e2m1fn_x2).t(),
            swizzled(rows.block_scales),
            blockwise,
            self.block_scales,
            blockwise,
            swizzle_a=swizzle,
            swizzle_b=swizzle,
            output_dtype=NATIVE_OUTPUT,
        )
        outputs = product.mul_(rows.scales).mul_(self.scales)
        if self.bias is not None:
            outputs += self.bias
        return activated(outputs.to(inputs.dtype), self.activation)


QuantizedLinear = Float8Linear | Float4Linear | NativeFloat4Linear


@cache
def has_native_float4(device: torch.device) -> bool:
    if device.type != "cuda" or not hasattr(functional, "scaled_mm"):
        return False
    return torch.cuda.get_device_capability(device) >= FP4


def quantized_linear(
    weight: Float8Rows | Float4Rows, bias: Tensor | None, activation: Activation, dtype: torch.dtype
) -> QuantizedLinear:
    """The fastest form for the weight's device and size. `weight` is [outputs, inputs]; the outputs are in `dtype`."""
    if isinstance(weight, Float8Rows):
        return Float8Linear.of(weight, bias, activation, dtype)
    outputs, pairs = weight.packed.shape
    fits = outputs % FLOAT4_OUTPUTS_MULTIPLE == 0 and 2 * pairs % FLOAT4_INPUTS_MULTIPLE == 0
    if fits and has_native_float4(weight.packed.device):
        return NativeFloat4Linear.of(weight, bias, activation)
    return Float4Linear(weight, bias, activation, pairs_of_bytes(dtype, weight.packed.device))
