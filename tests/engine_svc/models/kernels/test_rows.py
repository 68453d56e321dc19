"""Each row-wise kernel, in Triton's interpreter, against its plain version."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from engine_svc.models.activations import Activation
from engine_svc.models.float4 import Float4Rows, dequantize_float4, make_byte_table
from engine_svc.models.float8 import quantize_to_float8_by_torch
from engine_svc.models.kernels.gated import activate_gate, activate_gate_to_float8
from engine_svc.models.kernels.norms import add_and_normalize, normalize
from engine_svc.models.kernels.quantize import dequantize_float4_by_kernel, quantize_to_float8_by_kernel
from engine_svc.models.norms import LayerNorm, RMSNorm
from tests.engine_svc.models.kernels.table import (
    ROW_KERNELS,
    activate_gate_by_torch,
    dequantize,
    normalize_by_torch,
    rotate_copy,
    rotate_copy_by_torch,
)

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TOLERANCES = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
WIDTHS = (1, 24, 384, 1024, 2560, 4096)

# NumPy warns of the NaNs that are put in.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def norms(width: int, dtype: torch.dtype) -> Sequence[LayerNorm | RMSNorm]:
    weight, bias = torch.randn(2, width)
    return (
        RMSNorm(weight, 1e-6),
        LayerNorm(weight.to(dtype), bias.to(dtype), 1e-12),
        LayerNorm(weight.to(dtype), None, 1e-5),
    )


def close(ours: Tensor, theirs: Tensor) -> None:
    tolerance = TOLERANCES[theirs.dtype]
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROW_KERNELS)
def test_kernel_equals_its_plain_version_on_its_example(name: str, dtype: torch.dtype) -> None:
    kernel = ROW_KERNELS[name]
    arguments = kernel.example(torch.device("cpu"), dtype)
    kept = [argument.clone() if isinstance(argument, Tensor) else argument for argument in arguments]
    ours, theirs = kernel.fused(*arguments), kernel.plain(*arguments)
    if "float8" in name:  # whose few steps hide what is less
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-3
    else:
        close(ours, theirs)
    for argument, before in zip(arguments, kept, strict=True):
        assert not isinstance(argument, Tensor) or torch.equal(argument, before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_norms_of_any_width(width: int, dtype: torch.dtype) -> None:
    hidden, update = torch.randn(2, 3, width).to(dtype)
    for norm in norms(width, dtype):
        close(normalize(hidden, norm), normalize_by_torch(hidden, norm))
        close(normalize(hidden, norm, update), normalize_by_torch(hidden, norm, update))


@pytest.mark.parametrize("rows", [1, 3, 257])
def test_norms_of_any_number_of_rows(rows: int) -> None:
    hidden = torch.randn(rows, 40)
    for norm in norms(40, torch.float32):
        close(normalize(hidden, norm), normalize_by_torch(hidden, norm))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sum_takes_the_place_of_the_update(dtype: torch.dtype) -> None:
    norm = norms(200, dtype)[0]
    hidden, update = torch.randn(2, 5, 200).to(dtype)
    total, before = update + hidden, hidden.clone()
    normalized = add_and_normalize(hidden, norm, update, as_float8=False)
    assert torch.equal(update, total)
    assert torch.equal(hidden, before)
    assert isinstance(normalized, Tensor)
    close(normalized, normalize_by_torch(total, norm))


def row_functions(width: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """Each of [rows, 2 * width] float32, every row for itself."""
    weight = torch.randn(2 * width)
    heads = RMSNorm(torch.randn(2, 2 * width // 4), 1e-6)

    def rotated(rows: Tensor) -> Tensor:
        rotation = torch.ones(2, len(rows), 1, width // 4)
        return rotate_copy(rows.view(len(rows), 4, -1), 2, (rotation[0], rotation[1]), heads).flatten(1)

    return {
        "RMS norm": lambda rows: normalize(rows, RMSNorm(weight, 1e-6)),
        "layer norm": lambda rows: normalize(rows, LayerNorm(weight, weight, 1e-6)),
        "norm to float8": lambda rows: dequantize(add_and_normalize(rows, RMSNorm(weight, 1e-6), None, as_float8=True)),
        "rotary": rotated,
        "gate": lambda rows: activate_gate(rows, Activation.SILU),
        "relu gate": lambda rows: activate_gate(rows, Activation.RELU),
        "gate to float8": lambda rows: dequantize(activate_gate_to_float8(rows, Activation.GELU)),
        "quantization": lambda rows: dequantize(quantize_to_float8_by_kernel(rows)),
    }


@pytest.mark.parametrize("name", row_functions(8))
def test_row_has_the_same_bits_alone_and_in_a_batch_and_keeps_its_nan(name: str) -> None:
    function = row_functions(40)[name]
    rows = torch.randn(67, 80)
    whole = function(rows)
    for index in (0, 30, 66):
        assert torch.equal(function(rows[index : index + 1].clone())[0], whole[index])
    rows[31, 7] = torch.nan
    spoilt = function(rows)
    assert spoilt[31].isnan().any()
    others = torch.arange(67) != 31
    assert torch.equal(spoilt[others], whole[others])


@pytest.mark.parametrize("width", [1, 7, 384, 2560])
def test_quantized_rows_are_the_plain_ones(width: int) -> None:
    rows = torch.randn(5, width) * torch.tensor([1e-30, 1e-3, 1.0, 1e3, 1e30])[:, None]
    ours, theirs = quantize_to_float8_by_kernel(rows), quantize_to_float8_by_torch(rows)
    torch.testing.assert_close(ours.scales, theirs.scales)
    torch.testing.assert_close(dequantize(ours), dequantize(theirs), rtol=1 / 8, atol=0)
    assert (ours.values.float() == theirs.values.float()).float().mean() > 0.99


def test_quantized_zeros_stay_zero_and_rows_that_are_not_finite_get_nan() -> None:
    rows = torch.ones(4, 16)
    rows[0], rows[1, 3], rows[2, 5] = 0.0, torch.nan, torch.inf
    quantized = dequantize(quantize_to_float8_by_kernel(rows))
    assert torch.equal(quantized[0], torch.zeros(16))
    assert quantized[1].isnan().all()
    assert quantized[2].isnan().any()
    torch.testing.assert_close(quantized[3], torch.ones(16))


@pytest.mark.parametrize("activation", Activation)
def test_gates_of_any_width(activation: Activation) -> None:
    for width in (1, 48, 1500, 2560):
        gate_up = torch.randn(3, 2 * width) * 3
        close(activate_gate(gate_up, activation), activate_gate_by_torch(gate_up, activation))
        ours = activate_gate_to_float8(gate_up, activation)
        theirs = quantize_to_float8_by_torch(activate_gate_by_torch(gate_up, activation))
        torch.testing.assert_close(dequantize(ours), dequantize(theirs), rtol=1 / 8, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("head_dim", "half"), [(8, 4), (32, 16), (64, 16), (24, 8), (128, 64)])
@pytest.mark.parametrize("has_norm", [False, True])
def test_heads_of_any_size_are_rotated(dtype: torch.dtype, head_dim: int, half: int, has_norm: bool) -> None:
    rows, heads = 9, 3
    projected = torch.randn(rows, heads + 2, head_dim).to(dtype)
    angles = torch.randn(rows, 1, half)
    norm = RMSNorm(torch.randn(heads, head_dim), 1e-6) if has_norm else None
    arguments: tuple[Any, ...] = (projected, heads, (angles.cos().to(dtype), angles.sin().to(dtype)), norm)
    close(rotate_copy(*arguments), rotate_copy_by_torch(*arguments))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_byte_and_scale_of_float4_is_dequantized_exactly(dtype: torch.dtype) -> None:
    """Also scales that are no normal numbers of E4M3."""
    packed = torch.arange(256, dtype=torch.uint8).repeat(4).view(2, 512)
    block_scales = torch.arange(128, dtype=torch.uint8).remainder(127).view(2, 64).view(torch.float8_e4m3fn)
    rows = Float4Rows(packed, block_scales, torch.tensor([[1.0], [0.37]]))
    assert torch.equal(
        dequantize_float4_by_kernel(rows, dtype), dequantize_float4(rows, make_byte_table(dtype, packed.device))
    )
