"""Linears with weights in FP8 and FP4: what they compute on a CPU, and how they call the GPU's products."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from engine_svc.models import float8
from engine_svc.models.activations import Activation
from engine_svc.models.float4 import quantize_to_float4
from engine_svc.models.float8 import (
    FLOAT8,
    Float8Rows,
    dequantize_float8,
    dequantized_product,
    private_product,
    public_product,
    quantize_to_float8,
)
from engine_svc.models.linear import LoraLinear, PlainLinear
from engine_svc.models.lora import AdapterRows, use_adapters
from engine_svc.models.quantized_linear import (
    Float4Linear,
    Float8Linear,
    NativeFloat4Linear,
    QuantizedLinear,
    make_quantized_linear,
)
from engine_svc.models.weights import LoraDelta
from tests.engine_svc.models import gpu_products

PRODUCTS = [private_product, public_product]
TYPES = [torch.float32, torch.bfloat16, torch.float16]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build_linear(format_: str, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> QuantizedLinear:
    rows = quantize_to_float8(weight) if format_ == "fp8" else quantize_to_float4(weight)
    return make_quantized_linear(rows, None if bias is None else bias.to(dtype), Activation.NONE, dtype)


def cosine(ours: Tensor, theirs: Tensor) -> float:
    return float(functional.cosine_similarity(ours.float().flatten(), theirs.float().flatten(), 0))


def test_rows_survive_fp8_within_its_precision() -> None:
    rows = random(40, 96) * torch.logspace(-6, 6, 40)[:, None]
    quantized = quantize_to_float8(rows)
    assert (quantized.values.dtype, quantized.scales.shape) == (FLOAT8, (40, 1))
    assert float(quantized.values.float().abs().amax(1).min()) == 448
    largest = rows.abs().amax(1, keepdim=True)
    assert ((dequantize_float8(quantized, torch.float32) - rows).abs() <= rows.abs() / 16 + largest * 2**-18).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("format_", "closeness"), [("fp8", 0.999), ("fp4", 0.99)])
@pytest.mark.parametrize("native", [True, False])
def test_product_is_that_of_the_plain_linear(
    monkeypatch: pytest.MonkeyPatch, format_: str, closeness: float, native: bool, dtype: torch.dtype
) -> None:
    if native:
        gpu_products.install(monkeypatch)
        closeness -= 0.006 if format_ == "fp4" else 0  # its inputs have four bits, too
    weight, bias, inputs = random(48, 64), random(48, seed=1), random(7, 64, seed=2)
    outputs = build_linear(format_, weight, bias, dtype)(inputs.to(dtype))
    assert outputs.dtype == dtype
    assert cosine(outputs, functional.linear(inputs, weight, bias)) > closeness


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows", [1, 5, 33])
def test_widened_product_equals_that_of_the_gpu_up_to_rounding(
    monkeypatch: pytest.MonkeyPatch, product: float8.Product, dtype: torch.dtype, rows: int
) -> None:
    gpu_products.install(monkeypatch)
    inputs, weight, bias = (
        quantize_to_float8(random(rows, 64)),
        quantize_to_float8(random(32, 64, seed=1)),
        random(32, seed=2),
    )
    outputs = product(inputs, weight, bias.to(torch.bfloat16), dtype)
    expected = dequantized_product(inputs, weight, bias.to(dtype), dtype)
    assert outputs.dtype == dtype
    torch.testing.assert_close(outputs.float(), expected.float(), rtol=2**-6, atol=0.06)


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("rows", [0, 1, 17])
@pytest.mark.parametrize("has_bias", [True, False])
def test_torch_accepts_the_call_for_a_gpu(product: float8.Product, rows: int, has_bias: bool) -> None:
    """Shapes, strides and types are checked by torch itself."""
    with FakeTensorMode():
        empty = partial(torch.empty, device="cuda")
        inputs = Float8Rows(empty(rows, 64, dtype=FLOAT8), empty(rows, 1))
        weight = Float8Rows(empty(48, 64, dtype=FLOAT8), empty(48, 1))
        bias = empty(48, dtype=torch.bfloat16) if has_bias else None
        outputs = product(inputs, weight, bias, torch.float16)
        assert (outputs.shape, outputs.dtype, outputs.device.type) == ((rows, 48), torch.float16, "cuda")


@pytest.mark.parametrize("rows", [0, 1, 17, 300])
def test_torch_accepts_the_call_for_a_gpu_with_fp4(rows: int) -> None:
    with FakeTensorMode():
        weight = quantize_to_float4(torch.empty(48, 96, dtype=torch.bfloat16, device="cuda"))
        bias = torch.empty(48, dtype=torch.bfloat16, device="cuda")
        linear = NativeFloat4Linear.of(weight, bias, Activation.NONE)
        outputs = linear(torch.empty(rows, 96, dtype=torch.bfloat16, device="cuda"))
        assert (outputs.shape, outputs.dtype, outputs.device.type) == ((rows, 48), torch.bfloat16, "cuda")


@pytest.mark.parametrize(("outputs", "inputs"), [(20, 64), (48, 40), (17, 19)])
def test_sides_that_the_gpu_refuses_are_widened(monkeypatch: pytest.MonkeyPatch, outputs: int, inputs: int) -> None:
    gpu_products.install(monkeypatch)
    weight = random(outputs, inputs)
    linear = build_linear("fp8", weight, None, torch.bfloat16)
    assert isinstance(linear, Float8Linear)
    assert not linear.takes_float8
    values = random(5, inputs, seed=1)
    assert cosine(linear(values.bfloat16()), values @ weight.T) > 0.999
    if inputs == 64:
        assert isinstance(build_linear("fp4", weight, None, torch.bfloat16), Float4Linear)


def test_rows_that_come_quantized_give_the_same_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_products.install(monkeypatch)
    linear = build_linear("fp8", random(48, 64), random(48), torch.bfloat16)
    assert isinstance(linear, Float8Linear)
    assert linear.takes_float8
    inputs = random(9, 64, seed=1).bfloat16()
    assert torch.equal(linear(inputs), linear(quantize_to_float8(inputs)))


@pytest.mark.parametrize("format_", ["fp8", "fp4"])
@pytest.mark.parametrize("native", [True, False])
def test_a_row_alone_has_the_outputs_that_it_has_beside_others(
    monkeypatch: pytest.MonkeyPatch, format_: str, native: bool
) -> None:
    if native:
        gpu_products.install(monkeypatch)
    linear = build_linear(format_, random(48, 64), random(48), torch.float32)
    inputs = random(50, 64, seed=1) * torch.logspace(-3, 3, 50)[:, None]
    together = linear(inputs)
    for row in (0, 17, 49):
        torch.testing.assert_close(linear(inputs[row : row + 1]), together[row : row + 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", Activation)
def test_activation_follows_the_product(activation: Activation) -> None:
    weight, bias, inputs = random(16, 32), random(16, seed=1), random(5, 32, seed=2)
    for rows in (quantize_to_float8(weight), quantize_to_float4(weight)):
        outputs = make_quantized_linear(rows, bias, activation, torch.float32)(inputs)
        before = make_quantized_linear(rows, bias, Activation.NONE, torch.float32)(inputs)
        one = PlainLinear(torch.eye(16), None, activation)
        torch.testing.assert_close(outputs, one(before))


@pytest.mark.parametrize("format_", ["fp8", "fp4"])
@pytest.mark.parametrize("native", [True, False])
def test_adapters_change_a_quantized_linear_as_a_plain_one(
    monkeypatch: pytest.MonkeyPatch, format_: str, native: bool
) -> None:
    if native:
        gpu_products.install(monkeypatch)
    weight, inputs = random(48, 64), random(6, 64, seed=1)
    deltas = [LoraDelta(random(48, 4, seed=2), random(4, 64, seed=3))]
    adapted = AdapterRows([(0, torch.tensor([1, 4], dtype=torch.int32))], torch.tensor([0, 2, 3, 5], dtype=torch.int32))
    quantized = build_linear(format_, weight, None, torch.float32)
    with use_adapters(adapted):
        outputs = LoraLinear(quantized, deltas)(inputs)
    expected = quantized(inputs)
    expected[[1, 4]] += inputs[[1, 4]] @ (deltas[0].lora_b @ deltas[0].lora_a).T
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-3)
