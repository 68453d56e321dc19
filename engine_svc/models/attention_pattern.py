"""Whom a token attends to, and what becomes of the scores before the softmax. Each layer of a model has a pattern."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class AttentionPattern:
    """Without settings: every token of the sequence, scores scaled by 1 / sqrt(head_dim)."""

    behind: int | None = None  # tokens before it that a token sees; None = all
    ahead: int | None = None  # tokens after it; 0 is causal, None = all
    scale: float | None = None  # None = 1 / sqrt(head_dim)
    softcap: float | None = None  # scores become softcap * tanh(score / softcap)
    # Added to scores, by distance: float32 [heads, 2 * longest - 1], for keys from longest - 1 tokens before the query
    # to as many after it. ALiBi and learned relative positions are of this form.
    bias: Tensor | None = None

    def sees_all(self, length: int) -> bool:
        """Whether nothing is hidden from any token of so many."""
        return all(reach is None or reach >= length - 1 for reach in (self.behind, self.ahead))

    def is_plain(self, length: int) -> bool:
        """Whether scores are but scaled, and nothing is hidden from any token of so many."""
        return self.softcap is None and self.bias is None and self.sees_all(length)

    def sees_all_before(self, length: int) -> bool:
        """Whether each token of so many sees itself and all tokens before it, and no others."""
        return self.ahead == 0 and (self.behind is None or self.behind >= length - 1)

    def keys_of(self, queries: range, length: int) -> range:
        """Those that some of the queries, which follow each other, can see."""
        first = 0 if self.behind is None else max(0, queries.start - self.behind)
        stop = length if self.ahead is None else min(length, queries.stop + self.ahead)
        return range(first, stop)

    def mask(self, queries: range, keys: range, dtype: torch.dtype, device: torch.device) -> Tensor:
        """What to add to scores [heads or 1, queries, keys]: the bias, and -inf for what is hidden."""
        # All distances between a key and a query, and a window of them for each query, the first query's being last.
        nearest, farthest = keys.start - (queries.stop - 1), keys.stop - 1 - queries.start
        distances = torch.arange(nearest, farthest + 1, device=device)
        line = self._line(nearest, farthest, dtype, device)
        if self.behind is not None:
            line = line.masked_fill(distances < -self.behind, -torch.inf)
        if self.ahead is not None:
            line = line.masked_fill(distances > self.ahead, -torch.inf)
        return line.unfold(1, len(keys), 1).flip(1)

    def _line(self, nearest: int, farthest: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        if self.bias is None:
            return torch.zeros(1, farthest - nearest + 1, dtype=dtype, device=device)
        zero = self.bias.shape[1] // 2
        return self.bias[:, zero + nearest : zero + farthest + 1].to(dtype)
