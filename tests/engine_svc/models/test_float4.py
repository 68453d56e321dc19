"""The layout of NVFP4, against formulas written here from its description, and how near the quantized numbers are."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine_svc.models.float4 import (
    Float4Rows,
    dequantize_float4,
    encode,
    fit_to_float4,
    make_byte_table,
    quantize_to_float4,
    swizzle,
)

# Of the Open Compute Project's E2M1, by code.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)

both_ways = pytest.mark.parametrize("quantize", [quantize_to_float4, fit_to_float4])
Quantize = Callable[[Tensor], Float4Rows]


def random_rows(rows: int, numbers: int) -> Tensor:
    return torch.randn(rows, numbers, generator=torch.Generator().manual_seed(0))


def dequantize(rows: Float4Rows) -> Tensor:
    return dequantize_float4(rows, make_byte_table(torch.float32, rows.packed.device))


def relative_error(rows: Tensor, quantize: Quantize) -> float:
    return float((dequantize(quantize(rows)) - rows).norm() / rows.norm())


def test_numbers_are_rounded_to_the_nearest_and_ties_to_the_even_code() -> None:
    values = torch.arange(-56, 57) / 8
    for value, code in zip(values.tolist(), encode(values).tolist(), strict=True):
        distances = [abs(number - value) for number in E2M1]
        nearest = {index for index, distance in enumerate(distances) if distance == min(distances)}
        assert code in nearest
        assert len({code & 7 for code in nearest}) == 1 or code % 2 == 0


@both_ways
def test_bytes_and_scales_are_read_as_the_layout_says(quantize: Quantize) -> None:
    """The number with the even index is in the lower bits; 16 numbers have a scale."""
    rows = quantize(random_rows(3, 64))
    found = dequantize(rows)
    assert (rows.packed.shape, rows.block_scales.shape, rows.scales.shape) == ((3, 32), (3, 4), (3, 1))
    for row, column in itertools.product(range(3), range(64)):
        byte = int(rows.packed[row, column // 2])
        code = byte >> 4 if column % 2 else byte & 15
        scale = float(rows.block_scales[row, column // 16].float()) * float(rows.scales[row])
        assert float(found[row, column]) == pytest.approx(E2M1[code] * scale, rel=1e-6)


def test_quantized_numbers_are_as_near_as_four_bits_allow() -> None:
    rows = random_rows(50, 256)
    assert relative_error(rows, quantize_to_float4) < 0.1
    error = dequantize(quantize_to_float4(rows)) - rows
    # Half of the widest step, between 4 and 6 times the scale, which E4M3 rounds by a sixteenth at the most.
    largest = rows.abs().view(50, -1, 16).amax(2)
    assert (error.abs().view(50, -1, 16).amax(2) <= largest * (1 / 6 + 1 / 16)).all()


def least_error(rows: Tensor) -> float:
    """The error with the best block scales, found by trying all of E4M3."""
    blocks = rows.view(len(rows), -1, 16)
    scales = fit_to_float4(rows).scales[:, :, None]
    levels = torch.tensor(sorted(set(E2M1)))
    errors = []
    for code in range(1, 127):
        factor = torch.tensor([code], dtype=torch.uint8).view(torch.float8_e4m3fn).float() * scales
        nearest = levels[(blocks[..., None] / factor[..., None] - levels).abs().argmin(-1)]
        errors.append((nearest * factor - blocks).square().sum(-1))
    return float(torch.stack(errors).amin(0).sum().sqrt() / rows.norm())


@pytest.mark.parametrize("tails", [1, 3], ids=["normal", "with outliers"])
def test_the_scales_of_weights_are_almost_the_best(tails: int) -> None:
    rows = random_rows(10, 256) ** tails
    assert least_error(rows) <= relative_error(rows, fit_to_float4) <= 1.02 * least_error(rows)
    assert relative_error(rows, fit_to_float4) < 0.95 * relative_error(rows, quantize_to_float4)


@both_ways
def test_numbers_of_the_format_survive_exactly(quantize: Quantize) -> None:
    rows = torch.tensor([E2M1]) * torch.tensor([[1.0], [0.25], [3.5]])
    torch.testing.assert_close(dequantize(quantize(rows)), rows, rtol=1e-6, atol=0)


@both_ways
def test_small_and_empty_blocks_do_not_become_nan(quantize: Quantize) -> None:
    rows = torch.zeros(3, 32)
    rows[1, 0], rows[1, 31], rows[2] = 1e4, 1e-6, 1e-38
    torch.testing.assert_close(dequantize(quantize(rows)), torch.where(rows > 1, rows, 0.0))


@both_ways
def test_a_row_is_quantized_without_the_others(quantize: Quantize) -> None:
    rows = random_rows(4, 64)
    together, alone = quantize(rows), quantize(rows[2:3])
    assert torch.equal(together.packed[2:3], alone.packed)
    assert torch.equal(together.scales[2:3], alone.scales)


@pytest.mark.parametrize(("rows", "columns"), [(128, 4), (1, 1), (130, 6), (300, 24)])
def test_scales_are_swizzled_as_cublas_describes(rows: int, columns: int) -> None:
    """The offset of a scale, from the description of the 1D block scaling layout in the manual of cuBLAS."""
    scales = torch.arange(rows * columns).remainder(120).to(torch.uint8).view(rows, columns)
    found = swizzle(scales.view(torch.float8_e4m3fn)).view(torch.uint8)
    tiles_across = -(-columns // 4)
    assert len(found) == -(-rows // 128) * tiles_across * 512
    for row, column in itertools.product(range(rows), range(columns)):
        tile = row // 128 * tiles_across + column // 4
        offset = tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + column % 4
        assert found[offset] == scales[row, column]
    assert found.count_nonzero() == scales.count_nonzero()
