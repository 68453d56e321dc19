"""ALiBi (Press et al. 2021, arXiv 2108.12409): each head likes tokens less the farther away they are, at a rate of its
own. Among encoders, which look both ways, the distance counts without its sign. Architectures lay it out at load, as
the bias of their attention pattern."""

import math

import torch
from torch import Tensor


def alibi_bias(heads: int, longest: int, device: torch.device) -> Tensor:
    """float32 [heads, 2 * longest - 1]: a line and not a square, so little even for long texts."""
    distances = torch.arange(1 - longest, longest, dtype=torch.float32, device=device).abs()
    return -torch.tensor(slopes_of(heads), device=device)[:, None] * distances


def slopes_of(heads: int) -> list[float]:
    """A geometric sequence that ends with 1 / 256. Where the heads are not a power of two: that of the power below,
    then every other slope of the power above."""
    power = 1 << (heads.bit_length() - 1)
    slopes = geometric(power)
    return slopes + geometric(2 * power)[::2][: heads - power]


def geometric(heads: int) -> list[float]:
    ratio = math.pow(2, -8 / heads)
    return [ratio ** (index + 1) for index in range(heads)]
