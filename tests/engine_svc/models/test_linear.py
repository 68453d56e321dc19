"""Plain and prepacked linears are the same function, and those of a transformer can be observed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.activations import ACT2FN

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models import linear as linear_module
from engine_svc.models.activations import ACTIVATIONS, Activation
from engine_svc.models.linear import PlainLinear, PrepackedLinear, make_linear, suitable_rows
from heddle.checkpoint import Checkpoint
from tests.checkpoints import write_bert
from tests.engine_svc.models.packed import random_batch

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")  # type: ignore[no-untyped-call]


@needs_onednn
@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_prepacked_equals_plain(activation: Activation, has_bias: bool, rows: int) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 32), torch.randn(48) if has_bias else None
    inputs = torch.randn(rows, 32)
    with torch.inference_mode():
        plain = PlainLinear(weight, bias, activation)(inputs)
        prepacked = PrepackedLinear.of(weight, bias, activation)(inputs)
    torch.testing.assert_close(prepacked, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.2)])
def test_form_that_is_chosen_computes_the_product(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    weight, bias, inputs = torch.randn(48, 32), torch.randn(48), torch.randn(5, 32)
    with torch.inference_mode():
        outputs = make_linear(weight.to(dtype), bias.to(dtype))(inputs.to(dtype))
    assert outputs.dtype == dtype
    torch.testing.assert_close(outputs.float(), inputs @ weight.T + bias, atol=tolerance, rtol=0.02)


@needs_onednn
@pytest.mark.parametrize(
    ("rows", "filled"), [(1, 8), (7, 8), (8, 8), (57, 64), (65, 80), (129, 160), (512, 512), (2000, 2016)]
)
def test_batches_are_filled_up_by_little(monkeypatch: pytest.MonkeyPatch, rows: int, filled: int) -> None:
    monkeypatch.setattr(linear_module, "has_16_bit_products", lambda *_: True)
    assert suitable_rows(rows, torch.device("cpu"), torch.bfloat16) == filled


def test_batches_that_are_not_prepacked_are_not_filled_up() -> None:
    assert suitable_rows(7, torch.device("cpu"), torch.float32) == 7


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_equal_those_of_transformers(name: str) -> None:
    inputs = torch.linspace(-5, 5, 101)[:, None]
    outputs = PlainLinear(torch.ones(1, 1), None, ACTIVATIONS[name])(inputs)
    torch.testing.assert_close(outputs, ACT2FN[name](inputs), atol=1e-6, rtol=1e-5)


def test_each_linear_of_a_transformer_is_observed_by_the_names_of_its_parts(tmp_path: Path) -> None:
    write_bert(tmp_path)
    seen: list[tuple[str, ...]] = []

    def observe(names: Sequence[str], linear: Callable[[Any], torch.Tensor]) -> Callable[[Any], torch.Tensor]:
        def run(inputs: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(names))
            return linear(inputs)

        return run

    TorchBackend(Checkpoint.read(tmp_path), device="cpu", observe=observe).run(random_batch((1, 3)))
    layer = "encoder.layer.0"
    assert seen[:4] == [
        tuple(f"{layer}.attention.self.{part}" for part in ("query", "key", "value")),
        (f"{layer}.attention.output.dense",),
        (f"{layer}.intermediate.dense",),
        (f"{layer}.output.dense",),
    ]
