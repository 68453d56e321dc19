"""ALiBi's slopes, as the paper's authors have them, and how little its bias takes."""

import pytest
import torch

from engine_svc.models.attention_pattern import alibi_bias, alibi_slopes

OF_8 = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (1, [2**-8]),
        (2, [2**-4, 2**-8]),
        (3, [2**-4, 2**-8, 2**-2]),
        (8, OF_8),
        (12, [*OF_8, 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]),
        (16, [2 ** -(half / 2) for half in range(1, 17)]),
    ],
)
def test_slopes_are_those_of_the_paper_whatever_the_heads(heads: int, slopes: list[float]) -> None:
    assert alibi_slopes(heads) == pytest.approx(slopes)


def test_bias_grows_with_the_distance_to_either_side() -> None:
    bias = alibi_bias(8, 3, torch.device("cpu"))
    assert bias[0].tolist() == [-1.0, -0.5, 0.0, -0.5, -1.0]


def test_bias_of_a_long_text_is_a_line_per_head() -> None:
    bias = alibi_bias(12, 8192, torch.device("cpu"))
    assert bias.untyped_storage().nbytes() < 1_000_000
