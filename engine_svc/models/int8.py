"""int8 quantization with one scale per row, and linears with int8 weights. `engine_svc.models.quantized_linear` calls
this.

CPUs with VNNI or AMX multiply int8: each row of inputs is quantized too, by its largest magnitude. Integer sums are
exact, so a row has the same outputs in any batch. Other hardware widens the weights for each product.

oneDNN is fast on all these CPUs only with unsigned inputs. Inputs are therefore shifted by 128, which adds a constant
to each output; the product's bias subtracts it. oneDNN does not scale rows of inputs, so their scales are applied
afterwards, together with the bias.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.activations import Activation, apply_activation
from engine_svc.models.onednn import has_int8_products, round_up_rows

INT8_MAX = 127.0

# Shifts inputs from int8 to uint8. Flipping this bit of an int8 byte and reading it as uint8 adds 128.
SHIFT = 0x80

# One core quantizes this many elements at a time, so that float32 copies stay in its cache.
ELEMENTS_AT_A_TIME = 1 << 17

# Masks without the sign bit, by element size. Magnitudes of floats sort like their bits read as integers, whose maximum
# is several times as fast to find.
MAGNITUDE_BITS = {2: (torch.int16, 0x7FFF), 4: (torch.int32, 0x7FFFFFFF)}

# Slightly more than 1 / INT8_MAX, so that values fit even if bfloat16 rounds the scale down.
SCALE = (1 + 2**-8) / INT8_MAX


@dataclass(frozen=True, slots=True)
class Int8Rows:
    """Quantized rows, equal to values * scales."""

    values: Tensor  # int8 [rows, numbers]
    scales: Tensor  # float32 [rows, 1]


def quantize_to_int8(rows: Tensor) -> Int8Rows:
    """For weights. Maps each row's largest magnitude to INT8_MAX. A row of zeros has scale 1, as in ModelOpt."""
    rows = rows.float()
    scales = rows.abs().amax(-1, keepdim=True) / INT8_MAX
    scales = scales.where(scales > 0, 1.0)
    return Int8Rows((rows / scales).round_().clamp_(-INT8_MAX, INT8_MAX).to(torch.int8), scales)


def dequantize_int8(rows: Int8Rows, dtype: torch.dtype) -> Tensor:
    return rows.values.to(dtype).mul_(rows.scales)


@dataclass(frozen=True, slots=True)
class WidenedInt8Linear:
    """Widens its weight for each product."""

    weight: Int8Rows  # [outputs, inputs]
    bias: Tensor | None
    activation: Activation
    smoothing: Tensor | None  # [inputs], multiplies the inputs

    def __call__(self, inputs: Tensor) -> Tensor:
        smoothed = inputs if self.smoothing is None else inputs * self.smoothing
        product = functional.linear(smoothed, dequantize_int8(self.weight, inputs.dtype), self.bias)
        return apply_activation(product, self.activation)


@dataclass(frozen=True, slots=True)
class Int8Linear:
    packed_weight: Tensor  # int8 [inputs, outputs] in oneDNN's own layout
    scales: Tensor  # float32 [outputs]
    zero_points: Tensor  # int64 [outputs], all 0
    shift: Tensor  # float32 [outputs], cancels the shift of the inputs
    bias: Tensor | None
    activation: Activation
    smoothing: Tensor | None  # [inputs], multiplies the inputs

    @classmethod
    def of(
        cls, weight: Int8Rows, bias: Tensor | None, activation: Activation, smoothing: Tensor | None = None
    ) -> "Int8Linear":
        scales = weight.scales.flatten()
        sums = weight.values.sum(1, dtype=torch.int32)
        return cls(
            packed_weight=torch.ops.onednn.qlinear_prepack(weight.values.contiguous(), None),
            scales=scales,
            zero_points=torch.zeros_like(scales, dtype=torch.int64),
            shift=sums * scales * -float(SHIFT),
            bias=bias,
            activation=activation,
            smoothing=smoothing,
        )

    def __call__(self, inputs: Tensor) -> Tensor:
        smoothed = inputs if self.smoothing is None else inputs * self.smoothing
        values, scales = quantize_inputs(smoothed, round_up_rows(len(inputs)))
        product = torch.ops.onednn.qlinear_pointwise(
            *(values, 1.0, 0, self.packed_weight, self.scales, self.zero_points, self.shift),
            *(1.0, 0, scales.dtype, "none", [], ""),
        )[: len(inputs)]
        if self.bias is None:
            outputs = product.mul_(scales)
        else:
            outputs = torch.addcmul(self.bias.to(product.dtype), product, scales, out=product)
        return apply_activation(outputs.to(inputs.dtype), self.activation)


Int8 = Int8Linear | WidenedInt8Linear


def make_int8_linear(weight: Int8Rows, bias: Tensor | None, activation: Activation, smoothing: Tensor | None) -> Int8:
    """`weight` is [outputs, inputs]. `bias` and `smoothing` are in the type of the inputs."""
    if has_int8_products(weight.values.device):
        return Int8Linear.of(weight, bias, activation, smoothing)
    return WidenedInt8Linear(weight, bias, activation, smoothing)


def quantize_inputs(inputs: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Returns the quantized values + 128, uint8 [rows, numbers], and their scales [len(inputs), 1], which are bfloat16
    for bfloat16 inputs, else float32. Rows after len(inputs) are uninitialized."""
    count, numbers = inputs.shape
    scales = measure_scales(inputs)
    divisors = scales.float().reciprocal()
    step = max(1, ELEMENTS_AT_A_TIME * torch.get_num_threads() // numbers)
    if rows == count <= step:
        values = scale_rows(inputs, divisors).round_().to(torch.int8)
    else:
        values = torch.empty(rows, numbers, dtype=torch.int8)
        for start in range(0, count, step):
            place = slice(start, min(start + step, count))
            values[place] = scale_rows(inputs[place], divisors[place]).round_()
    return values.view(torch.uint8).bitwise_xor_(SHIFT), scales


def measure_scales(inputs: Tensor) -> Tensor:
    integer, mask = MAGNITUDE_BITS[inputs.element_size()]
    largest = (inputs.view(integer) & mask).amax(1, keepdim=True).view(inputs.dtype)
    return (largest.float() if inputs.dtype == torch.float16 else largest).mul_(SCALE)


def scale_rows(inputs: Tensor, factors: Tensor) -> Tensor:
    """Returns float32. Converting first is faster than a product of two data types."""
    return inputs * factors if inputs.dtype == torch.float32 else inputs.float().mul_(factors)
