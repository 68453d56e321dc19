"""Moves outliers from the inputs of a group of linears into their weights: SmoothQuant (Xiao et al. 2022, arXiv
2211.10438). `engine_svc.build.quantizer` calls this for each group.

In the paper's equation 4, input channel j is divided by s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), and column j of
the weights is multiplied by it, so that the product stays the same. ModelOpt stores 1 / s as `pre_quant_scale`. The
paper uses one alpha for all layers, 0.5 for most models. Here each group gets the one of ALPHAS, or no smoothing, that
minimizes the error of int8 products of its sampled inputs.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from engine_svc.build.formats import SmoothInt8
from engine_svc.build.observation import LinearInputs
from engine_svc.models.int8 import dequantize_int8, quantize_to_int8

# The first is the default: another must have an error smaller by MARGIN. None means no smoothing.
ALPHAS = (0.5, 0.3, 0.4, 0.6, 0.7, 0.8, None)
MARGIN = 0.01

# As in ModelOpt's `smoothquant`: channels whose inputs are almost zero are not scaled, and scales stay in the range of
# float16.
ZERO = 2.0**-31
SCALE_MIN, SCALE_MAX = 1e-4, 1e4

ReadWeights = Callable[[], Iterable[Tensor]]  # rows [some, inputs] of all weights of the group, in float32


def smooth(read_weights: ReadWeights, inputs: LinearInputs, dtype: torch.dtype) -> SmoothInt8:
    """Reads the weights twice. `dtype` is that of the stored scales."""
    largest_weights = torch.zeros_like(inputs.largest)
    for rows in read_weights():
        largest_weights = torch.maximum(largest_weights, rows.abs().amax(0))
    scales = {alpha: compute_scales(inputs.largest, largest_weights, alpha, dtype) for alpha in ALPHAS}
    chosen = scales[choose_alpha(measure_errors(read_weights, inputs.samples.float(), scales))]
    return SmoothInt8.of(chosen, float((inputs.largest * chosen.float()).max()))


def compute_scales(inputs: Tensor, weights: Tensor, alpha: float | None, dtype: torch.dtype) -> Tensor:
    """Returns [inputs]. `inputs` and `weights` are the largest magnitudes of each input channel and weight column."""
    if alpha is None:
        return torch.ones_like(inputs, dtype=dtype)
    scales = weights.pow(1 - alpha) / inputs.clamp(min=ZERO).pow(alpha)
    unused = (inputs <= ZERO) | (weights <= ZERO)
    # Rounded to bfloat16 first, so that a model in any type multiplies by exactly what the weights were divided by.
    return torch.where(unused, 1.0, scales).clamp_(SCALE_MIN, SCALE_MAX).bfloat16().to(dtype)


def measure_errors(
    read_weights: ReadWeights, samples: Tensor, scales: Mapping[float | None, Tensor]
) -> Mapping[float | None, float]:
    """Returns the squared error of each alpha, summed over all outputs for `samples` [rows, inputs]."""
    smoothed = {alpha: round_to_int8(samples * scale.float()) for alpha, scale in scales.items()}
    errors = dict.fromkeys(scales, 0.0)
    for rows in read_weights():
        exact = samples @ rows.t()
        for alpha, scale in scales.items():
            product = smoothed[alpha] @ round_to_int8(rows / scale.float()).t()
            errors[alpha] += float((product - exact).square_().sum(dtype=torch.float64))
    return errors


def round_to_int8(rows: Tensor) -> Tensor:
    return dequantize_int8(quantize_to_int8(rows), torch.float32)


def choose_alpha(errors: Mapping[float | None, float]) -> float | None:
    default, *others = errors
    best = min(others, key=lambda alpha: errors[alpha])
    return best if errors[best] < (1 - MARGIN) * errors[default] else default
