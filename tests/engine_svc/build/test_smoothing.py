"""Smoothing keeps exact products the same, and reduces the error of int8 products of inputs with outliers."""

import pytest
import torch
from torch import Tensor

from engine_svc.build.formats import INT8_ROWS, SmoothInt8
from engine_svc.build.observation import LinearInputs
from engine_svc.build.smoothing import ALPHAS, choose_alpha, compute_scales, smooth
from engine_svc.models.int8 import quantize_to_int8

OUTPUTS, INPUTS, ROWS = 48, 64, 200


def make_inputs(outlier: float) -> Tensor:
    """A few channels are `outlier` times as large as the others, as in trained transformers."""
    rows = torch.randn(ROWS, INPUTS, generator=torch.Generator().manual_seed(0))
    rows[:, [3, 40]] *= outlier
    return rows


def make_weight() -> Tensor:
    return torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(1)) / 8


def observed(rows: Tensor) -> LinearInputs:
    return LinearInputs(rows.abs().amax(0), rows[::2])


def int8_product(rows: Tensor, values: Tensor, scales: Tensor) -> Tensor:
    """Computes like the engine: int8 inputs with one scale per token."""
    quantized = quantize_to_int8(rows)
    return (quantized.values.float() * quantized.scales) @ (values.float() * scales[:, None]).t()


def errors(outlier: float) -> tuple[float, float]:
    """Returns errors of weights_int8 and smooth_quant, on rows that are not among the samples."""
    rows, weight = make_inputs(outlier), make_weight()
    exact = rows[1::2] @ weight.t()
    plain = int8_product(rows[1::2], *INT8_ROWS.quantize(weight))
    format_ = smooth(lambda: [weight], observed(rows), torch.float32)
    values, scales, pre_quant_scale, _ = format_.quantize(weight)
    smoothed = int8_product(rows[1::2] * pre_quant_scale, values, scales)
    return tuple(float((product - exact).norm() / exact.norm()) for product in (plain, smoothed))  # type: ignore[return-value]


def test_smoothing_beats_plain_int8_where_inputs_have_outliers() -> None:
    plain, smoothed = errors(outlier=50)
    assert smoothed < plain / 3


def test_smoothing_does_no_harm_without_outliers() -> None:
    plain, smoothed = errors(outlier=1)
    assert smoothed < 1.05 * plain


def test_smoothing_both_factors_keeps_the_product() -> None:
    rows, weight = make_inputs(50), make_weight()
    format_ = smooth(lambda: [weight], observed(rows), torch.float32)
    values, scales, pre_quant_scale, input_scale = format_.quantize(weight)
    dequantized = values.float() * scales[:, None]
    torch.testing.assert_close(dequantized * pre_quant_scale, weight, atol=0.02, rtol=0)
    assert float(input_scale) == pytest.approx(float((rows * pre_quant_scale).abs().max()) / 127)


@pytest.mark.parametrize("alpha", [alpha for alpha in ALPHAS if alpha is not None])
def test_scales_are_those_of_the_paper(alpha: float) -> None:
    """Equation 4 of arXiv 2211.10438: s_j = max|X_j|^alpha / max|W_j|^(1 - alpha); inputs are divided by it."""
    inputs, weights = torch.tensor([4.0, 0.25, 1.0]), torch.tensor([0.5, 2.0, 1.0])
    expected = 1 / (inputs**alpha / weights ** (1 - alpha))
    torch.testing.assert_close(compute_scales(inputs, weights, alpha, torch.float32), expected, atol=0, rtol=2**-8)


def test_channels_of_zeros_are_not_scaled() -> None:
    scales = compute_scales(torch.tensor([0.0, 1e-12, 2.0]), torch.tensor([1.0, 1.0, 0.0]), 0.5, torch.float32)
    assert scales.tolist() == [1.0, 1.0, 1.0]


def test_the_linears_of_a_group_are_smoothed_together() -> None:
    """Separate blocks of rows give the same scales as one joined weight."""
    rows, weight = make_inputs(50), make_weight()
    whole = smooth(lambda: [weight], observed(rows), torch.float32)
    parts = smooth(lambda: [weight[:7], weight[7:30], weight[30:]], observed(rows), torch.float32)
    assert torch.equal(whole.pre_quant_scale, parts.pre_quant_scale)
    assert whole.input_scale == parts.input_scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_scales_are_rounded_before_weights_are_divided_by_them(dtype: torch.dtype) -> None:
    """A model in bfloat16 must multiply by exactly what the weights were divided by."""
    weight = make_weight()
    format_ = smooth(lambda: [weight], observed(make_inputs(50)), dtype)
    assert format_.pre_quant_scale.dtype == dtype
    assert torch.equal(format_.pre_quant_scale.bfloat16().float(), format_.pre_quant_scale.float())
    values, scales, pre_quant_scale, _ = format_.quantize(weight)
    again = quantize_to_int8(weight / pre_quant_scale.float())
    assert torch.equal(values, again.values)
    assert torch.equal(scales, again.scales.squeeze(1))


def test_the_papers_default_is_kept_unless_another_is_clearly_better() -> None:
    near = dict.fromkeys(ALPHAS, 1.0) | {0.7: 0.995}
    assert choose_alpha(near) == 0.5
    assert choose_alpha(near | {0.7: 0.9}) == 0.7
    assert choose_alpha(near | {None: 0.5}) is None


def test_inputs_of_zeros_have_a_positive_scale() -> None:
    format_ = smooth(lambda: [make_weight()], observed(torch.zeros(8, INPUTS)), torch.float32)
    assert isinstance(format_, SmoothInt8)
    assert format_.input_scale > 0
    assert format_.pre_quant_scale.eq(1).all()
