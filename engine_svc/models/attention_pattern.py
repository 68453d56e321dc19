"""Which tokens a token attends to, and what is done to the scores before the softmax. Each layer of a model has a
pattern."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class AttentionPattern:
    """The defaults: all tokens of the sequence, scores scaled by 1 / sqrt(head_dim)."""

    window_left: int | None = None  # tokens before it that a token sees; None = all
    window_right: int | None = None  # tokens after it; 0 is causal, None = all
    scale: float | None = None  # None = 1 / sqrt(head_dim)
    softcap: float | None = None  # scores become softcap * tanh(score / softcap)
    # Added to scores, by distance: float32 [heads, 2 * longest - 1], for keys from longest - 1 tokens before the query
    # to as many after it. ALiBi and learned relative positions have this form.
    bias: Tensor | None = None

    def sees_all(self, length: int) -> bool:
        """Whether each token of such a sequence sees all of it."""
        return all(window is None or window >= length - 1 for window in (self.window_left, self.window_right))

    def is_plain(self, length: int) -> bool:
        """Whether scores are only scaled, and each token of such a sequence sees all of it."""
        return self.softcap is None and self.bias is None and self.sees_all(length)

    def is_causal(self, length: int) -> bool:
        """Whether each token of such a sequence sees itself and all tokens before it, and no others."""
        return self.window_right == 0 and (self.window_left is None or self.window_left >= length - 1)

    def visible_keys(self, queries: range, length: int) -> range:
        """The keys that at least one of these adjacent queries can see."""
        first = 0 if self.window_left is None else max(0, queries.start - self.window_left)
        stop = length if self.window_right is None else min(length, queries.stop + self.window_right)
        return range(first, stop)

    def mask(self, queries: range, keys: range, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Returns [heads or 1, queries, keys] to add to the scores: the bias, and -inf for hidden keys."""
        # All distances between a key and a query, and a window of them for each query, the first query's being last.
        nearest, farthest = keys.start - (queries.stop - 1), keys.stop - 1 - queries.start
        distances = torch.arange(nearest, farthest + 1, device=device)
        line = self._bias_line(nearest, farthest, dtype, device)
        if self.window_left is not None:
            line = line.masked_fill(distances < -self.window_left, -torch.inf)
        if self.window_right is not None:
            line = line.masked_fill(distances > self.window_right, -torch.inf)
        return line.unfold(1, len(keys), 1).flip(1)

    def _bias_line(self, nearest: int, farthest: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        if self.bias is None:
            return torch.zeros(1, farthest - nearest + 1, dtype=dtype, device=device)
        zero = self.bias.shape[1] // 2
        return self.bias[:, zero + nearest : zero + farthest + 1].to(dtype)


def alibi_bias(num_heads: int, longest: int, device: torch.device) -> Tensor:
    """ALiBi (Press et al. 2021, arXiv 2108.12409): scores fall with the distance, in each head at its own rate.
    Encoders look both ways, so the sign of the distance does not count. Returns float32 [heads, 2 * longest - 1]."""
    distances = torch.arange(1 - longest, longest, dtype=torch.float32).abs()
    return (-torch.tensor(alibi_slopes(num_heads))[:, None] * distances).to(device)


def alibi_slopes(num_heads: int) -> list[float]:
    """A geometric sequence that ends with 1 / 256. If the number of heads is not a power of two: the slopes of the
    power below, then every other slope of the power above."""
    power = 1 << (num_heads.bit_length() - 1)
    slopes = geometric_slopes(power)
    return slopes + geometric_slopes(2 * power)[::2][: num_heads - power]


def geometric_slopes(num_heads: int) -> list[float]:
    ratio = math.pow(2, -8 / num_heads)
    return [ratio ** (index + 1) for index in range(num_heads)]
