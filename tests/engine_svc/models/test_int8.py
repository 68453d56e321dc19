"""Linears with int8 weights: int8 products on CPUs that have them, widened weights elsewhere."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models import int8
from engine_svc.models.activations import Activation
from engine_svc.models.int8 import (
    Int8,
    Int8Linear,
    WidenedInt8Linear,
    dequantize_int8,
    make_int8_linear,
    quantize_inputs,
    quantize_to_int8,
)
from engine_svc.models.linear import LoraLinear, PlainLinear
from engine_svc.models.lora import AdapterRows, use_adapters
from engine_svc.models.onednn import has_int8_products
from engine_svc.models.weights import LoraDelta

CPU = torch.device("cpu")
TYPES = [torch.float32, torch.bfloat16, torch.float16]
FORMS = [
    pytest.param(Int8Linear.of, marks=pytest.mark.skipif(not has_int8_products(CPU), reason="CPU without VNNI")),
    WidenedInt8Linear,
]

Form = Callable[[int8.Int8Rows, Tensor | None, Activation, Tensor | None], Int8]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.float() - theirs).norm() / theirs.norm())


def test_rows_survive_int8_within_half_a_step() -> None:
    rows = random(40, 96) * torch.logspace(-6, 6, 40)[:, None]
    quantized = quantize_to_int8(rows)
    assert (quantized.values.dtype, quantized.scales.shape) == (torch.int8, (40, 1))
    assert quantized.values.abs().amax(1).tolist() == [127] * 40
    assert ((dequantize_int8(quantized, torch.float32) - rows).abs() <= quantized.scales * 0.5001).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_inputs_survive_uint8_within_half_a_step(dtype: torch.dtype) -> None:
    inputs = (random(300, 512) * torch.logspace(-3, 2, 300)[:, None]).to(dtype)
    values, scales = quantize_inputs(inputs, 304)
    assert (values.dtype, values.shape, scales.shape) == (torch.uint8, (304, 512), (300, 1))
    assert scales.dtype == (torch.bfloat16 if dtype == torch.bfloat16 else torch.float32)
    restored = (values[:300].float() - 128) * scales.float()
    assert ((restored - inputs.float()).abs() <= scales.float() * 0.5001).all()
    # The whole range is used and never exceeded.
    assert values[:300].float().sub(128).abs().amax(1).min() >= 126


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("outputs", "inputs"), [(48, 64), (17, 19), (384, 1536)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_products_are_close_to_the_unquantized_linear(
    form: Form, dtype: torch.dtype, outputs: int, inputs: int, has_bias: bool
) -> None:
    weight, bias, rows = random(outputs, inputs), random(outputs, seed=1) if has_bias else None, random(7, inputs)
    linear = form(quantize_to_int8(weight), None if bias is None else bias.to(dtype), Activation.NONE, None)
    product = linear(rows.to(dtype))
    assert product.dtype == dtype
    assert relative_error(product, functional.linear(rows, weight, bias)) < 0.02


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", TYPES)
def test_outputs_of_a_row_do_not_depend_on_the_batch(form: Form, dtype: torch.dtype) -> None:
    linear = form(quantize_to_int8(random(96, 128)), random(96).to(dtype), Activation.GELU, None)
    inputs = (random(300, 128, seed=1) * torch.logspace(-3, 3, 300)[:, None]).to(dtype)
    together = linear(inputs)
    for start, count in ((0, 1), (17, 1), (40, 9), (299, 1)):
        place = slice(start, start + count)
        if form is WidenedInt8Linear:  # sums in another order
            torch.testing.assert_close(linear(inputs[place]), together[place], rtol=2**-6, atol=0.01)
        else:
            assert torch.equal(linear(inputs[place]), together[place])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", TYPES)
def test_rows_of_zeros_give_the_bias_and_broken_rows_change_no_other(form: Form, dtype: torch.dtype) -> None:
    bias = random(48).to(dtype)
    linear = form(quantize_to_int8(random(48, 64)), bias, Activation.NONE, None)
    inputs = random(4, 64, seed=1).to(dtype)
    expected = linear(inputs)
    inputs[1], inputs[2, 5] = 0, torch.nan
    outputs = linear(inputs)
    assert torch.equal(outputs[1], bias)
    assert outputs[2].isnan().all()
    torch.testing.assert_close(outputs[[0, 3]], expected[[0, 3]])


@pytest.mark.parametrize("form", FORMS)
def test_inputs_are_not_changed(form: Form) -> None:
    linear = form(quantize_to_int8(random(48, 64)), None, Activation.NONE, None)
    inputs = random(8, 64)
    before = inputs.clone()
    linear(inputs)
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("form", FORMS)
def test_smoothing_multiplies_the_inputs(form: Form) -> None:
    weight, inputs, smoothing = quantize_to_int8(random(64, 96)), random(20, 96, seed=1), random(96, seed=2).exp()
    expected = form(weight, None, Activation.NONE, None)(inputs * smoothing)
    assert torch.equal(form(weight, None, Activation.NONE, smoothing)(inputs), expected)


@pytest.mark.skipif(not has_int8_products(CPU), reason="CPU without VNNI")
def test_smoothing_splits_an_outlier_between_inputs_and_weights() -> None:
    weight, inputs, smoothing = random(64, 96), random(20, 96, seed=1), torch.ones(96)
    inputs[:, 7] *= 300
    smoothing[7] = 300**-0.5
    expected = functional.linear(inputs, weight)
    plain = Int8Linear.of(quantize_to_int8(weight), None, Activation.NONE)(inputs)
    smoothed = Int8Linear.of(quantize_to_int8(weight / smoothing), None, Activation.NONE, smoothing)(inputs)
    assert relative_error(smoothed, expected) < relative_error(plain, expected) / 4


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("activation", Activation)
def test_activation_follows_the_product(form: Form, activation: Activation) -> None:
    weight, bias, inputs = quantize_to_int8(random(16, 32)), random(16, seed=1), random(5, 32, seed=2)
    before = form(weight, bias, Activation.NONE, None)(inputs)
    one = PlainLinear(torch.eye(16), None, activation)
    torch.testing.assert_close(form(weight, bias, activation, None)(inputs), one(before))


@pytest.mark.parametrize("form", FORMS)
def test_adapters_apply_as_to_an_unquantized_linear(form: Form) -> None:
    inputs = random(6, 64, seed=1)
    deltas = [LoraDelta(random(48, 4, seed=2), random(4, 64, seed=3))]
    adapted = AdapterRows([(0, torch.tensor([1, 4], dtype=torch.int32))], torch.tensor([0, 2, 3, 5], dtype=torch.int32))
    linear = form(quantize_to_int8(random(48, 64)), None, Activation.NONE, None)
    with use_adapters(adapted):
        outputs = LoraLinear(linear, deltas)(inputs)
    expected = linear(inputs)
    expected[[1, 4]] += inputs[[1, 4]] @ (deltas[0].lora_b @ deltas[0].lora_a).T
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-3)


def test_weights_are_widened_where_the_cpu_does_not_multiply_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, inputs = quantize_to_int8(random(48, 64)), random(5, 64, seed=1)
    monkeypatch.setattr(int8, "has_int8_products", lambda _: False)
    linear = make_int8_linear(weight, None, Activation.NONE, None)
    assert isinstance(linear, WidenedInt8Linear)
    assert linear.weight.values.dtype == torch.int8
    torch.testing.assert_close(linear(inputs), inputs @ dequantize_int8(weight, torch.float32).T)
