"""Whole models with the kernels, in Triton's interpreter: results are the same as without them. FP8 goes from the
norms and the gates to the linears that take it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models import float8, norms, quantized_linear, rotary, transformer
from engine_svc.models.activations import Activation
from engine_svc.models.float8 import Float8Rows, dequantize_float8
from engine_svc.models.norms import RMSNorm
from engine_svc.models.transformer import BranchNorms, GatedFeedForward, ResidualStream
from heddle.checkpoint import Checkpoint
from tests.engine_svc.models.cases import OUTPUTS, Array
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.packed import random_batch
from tests.sequences import run_each

# RMS norms before branches and of heads, gates; layer norms of sums; RMS norms before and behind a branch; layer norms
# before branches; norms of two sums and of all heads together.
NAMES = (
    "qwen3 embedder, Qwen3-Embedding",
    "bert embedder, gelu",
    "gemma3_text embedder, scaled",
    "modernbert embedder, as gte-modernbert-base",
    "jina-bert embedder, as jina-embeddings-v2-base-code",
)


@pytest.fixture
def _kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (float8, norms, quantized_linear, rotary, transformer):
        monkeypatch.setattr(module, "runs_kernels", lambda _: True)


@pytest.mark.parametrize(("name", "quantization"), [*((name, "no_quant") for name in NAMES), (NAMES[0], "fp4")])
def test_model_has_the_same_vectors_with_kernels(
    name: str, quantization: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    [case] = [case for case in CASES if case.id == name]
    case.write(tmp_path)
    checkpoint = Checkpoint.read(tmp_path)
    batch = random_batch((3, 1, 17), output=OUTPUTS[case.kind], vocabulary_size=checkpoint.vocabulary_size)

    def outputs(dtype: str) -> list[Array]:
        backend = TorchBackend(checkpoint, dtype=dtype, device="cpu", quantization=quantization)
        return list(run_each(backend, batch))

    plain = outputs("float32")
    request.getfixturevalue("_kernels")
    for ours, short, theirs in zip(outputs("float32"), outputs("bfloat16"), plain, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
        cosines = (short * theirs).sum(1) / np.linalg.norm(short, axis=1) / np.linalg.norm(theirs, axis=1)
        assert cosines.min() > 0.999


@dataclass(frozen=True, slots=True)
class Float8Linear:
    """A linear that takes rows in FP8, and keeps what it was given."""

    weight: Tensor
    given: list[Tensor | Float8Rows] = field(default_factory=list)
    takes_float8 = True

    def __call__(self, rows: Tensor | Float8Rows) -> Tensor:
        self.given.append(rows)
        return functional.linear(
            dequantize_float8(rows, torch.float32) if isinstance(rows, Float8Rows) else rows, self.weight
        )


def feed_forward() -> GatedFeedForward:
    torch.manual_seed(0)
    gate_up, down = torch.randn(96, 32) / 6, torch.randn(32, 48) / 7
    return GatedFeedForward(Float8Linear(gate_up), Activation.SILU, Float8Linear(down), 48)


def passed_through(branch: GatedFeedForward, rows: Tensor) -> Tensor:
    """Two pre-norm branches, of which the second begins with a sum."""
    stream = ResidualStream(rows.clone())
    for _ in range(2):
        BranchNorms(input=RMSNorm(torch.ones(32), 1e-6)).run(branch, stream, as_float8=branch.takes_float8)
    return stream.hidden()


@pytest.mark.parametrize("numbers_max", [1 << 29, 192])
def test_norms_and_gates_quantize_for_linears_that_take_it(
    numbers_max: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """In slices of rows too."""
    monkeypatch.setattr(transformer, "FEED_FORWARD_NUMBERS_MAX_GPU", numbers_max)
    branch, rows = feed_forward(), torch.randn(5, 32)
    expected = passed_through(branch, rows)
    assert all(isinstance(given, Tensor) for given in given_to(branch))
    request.getfixturevalue("_kernels")
    branch = feed_forward()
    ours = passed_through(branch, rows)
    assert all(isinstance(given, Float8Rows) for given in given_to(branch))
    assert float((ours - expected).norm() / expected.norm()) < 0.05
    assert not torch.equal(ours, expected)


@pytest.mark.usefixtures("_kernels")
def test_norms_do_not_quantize_for_linears_that_do_not_take_it() -> None:
    branch = feed_forward()
    plain = dataclasses.replace(branch, gate_up_proj=partial(branch.gate_up_proj))
    passed_through(plain, torch.randn(5, 32))
    assert isinstance(branch.gate_up_proj, Float8Linear)
    assert all(isinstance(given, Tensor) for given in branch.gate_up_proj.given)


def given_to(branch: GatedFeedForward) -> Sequence[Tensor | Float8Rows]:
    assert isinstance(branch.gate_up_proj, Float8Linear)
    assert isinstance(branch.down_proj, Float8Linear)
    return [*branch.gate_up_proj.given, *branch.down_proj.given]
