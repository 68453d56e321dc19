"""What is asked of a cluster: requests per second, inputs per request, tokens per input. Used throughout the package.

Requests are independent of each other: a Poisson process. Sizes are whole numbers whose distribution is held as a
table of probabilities, so that the queueing model computes with exactly what the simulation draws.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class WholeNumbers:
    """Around `mean`, from 1 to `most`: log-normal and rounded, with a standard deviation of `spread` times the mean;
    all `mean` itself (or its two neighbours, if it is no whole number) where the spread is 0. What would be larger than
    `most` counts as `most`, as texts are cut there: the mean is then smaller than was asked for."""

    mean: float
    spread: float
    most: int

    def __post_init__(self) -> None:
        if not (1 <= self.mean <= self.most and self.spread >= 0):
            raise ValueError(f"no distribution from 1 to {self.most} has the mean {self.mean} and spread {self.spread}")

    @classmethod
    def log_normal(cls, median: float, sigma: float, most: int) -> "WholeNumbers":
        """By the parameters of the logarithm: its median is ln(`median`), its standard deviation `sigma`."""
        return cls(median * math.exp(sigma**2 / 2), math.sqrt(math.expm1(sigma**2)), most)

    @cached_property
    def probabilities(self) -> Floats:
        """Of 0, 1, … `most`."""
        if self.spread == 0:
            return neighbours(self.mean, self.most)
        variance = math.log1p(self.spread**2)
        middle = math.log(self.mean) - variance / 2
        edges = [(math.log(value + 0.5) - middle) / math.sqrt(2 * variance) for value in range(1, self.most)]
        below = np.array([0.0, *((1 + math.erf(edge)) / 2 for edge in edges), 1.0])
        return np.concatenate(([0.0], np.diff(below)))

    @cached_property
    def average(self) -> float:
        return float(self.probabilities @ np.arange(self.most + 1))

    @cached_property
    def average_square(self) -> float:
        return float(self.probabilities @ np.arange(self.most + 1) ** 2)

    @property
    def variance(self) -> float:
        return max(0.0, self.average_square - self.average**2)

    def quantile(self, share: float) -> int:
        return int(np.searchsorted(np.cumsum(self.probabilities), share - 1e-12))

    def draw(self, random: np.random.Generator, count: int) -> Integers:
        below = np.cumsum(self.probabilities)
        return np.minimum(np.searchsorted(below, random.random(count), side="right"), self.most).astype(np.int64)


def neighbours(mean: float, most: int) -> Floats:
    """The whole numbers around `mean`, with that mean."""
    probabilities = np.zeros(most + 1)
    lower = int(mean)
    probabilities[lower] = 1 - (mean - lower)
    if mean > lower:
        probabilities[lower + 1] = mean - lower
    return probabilities


@dataclass(frozen=True)
class Traffic:
    requests_per_s: float
    inputs: WholeNumbers  # of a request
    tokens: WholeNumbers  # of an input, special tokens included

    @property
    def sequences_per_s(self) -> float:
        return self.requests_per_s * self.inputs.average

    @property
    def tokens_per_s(self) -> float:
        return self.sequences_per_s * self.tokens.average

    @property
    def tokens_per_request(self) -> float:
        return self.inputs.average * self.tokens.average

    def scaled(self, factor: float) -> "Traffic":
        return Traffic(self.requests_per_s * factor, self.inputs, self.tokens)
