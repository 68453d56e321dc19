"""Makes vectors of a packed batch's hidden states: pooling, truncation to fewer dimensions, normalisation.

Every backend that produces hidden states uses it. The semantics are those of sentence-transformers' Pooling module; the
arithmetic is float32, whatever the model's. Nothing here waits for a GPU: all sizes are known on the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from heddle.checkpoint.sentence_modules import Pooling


@dataclass(frozen=True, slots=True)
class Prompts:
    """Leading tokens that pooling leaves out."""

    tokens: Tensor  # int32 [B]
    pooled_tokens: int  # how many tokens of the batch remain


@dataclass(frozen=True, slots=True)
class Spans:
    """The rows that are pooled for each sequence, from `firsts` to `stops`. All int32 [B]."""

    starts: Tensor
    firsts: Tensor  # `starts` itself where no sequence has a prompt
    stops: Tensor
    count: int  # rows of all spans

    @classmethod
    def of(cls, cu_seqlens: Tensor, tokens: int, prompts: Prompts | None) -> "Spans":
        starts, stops = cu_seqlens[:-1], cu_seqlens[1:]
        if prompts is None:
            return cls(starts, starts, stops, tokens)
        return cls(starts, torch.minimum(starts + prompts.tokens, stops), stops, prompts.pooled_tokens)

    @property
    def have_prompts(self) -> bool:
        return self.firsts is not self.starts

    @property
    def lengths(self) -> Tensor:
        return self.stops - self.firsts

    @property
    def offsets(self) -> Tensor:
        """The start of each span when all spans are laid end to end."""
        if not self.have_prompts:
            return self.starts
        lengths = self.lengths
        return lengths.cumsum(0, dtype=torch.int32) - lengths

    def repeat(self, values: Tensor) -> Tensor:
        """For each row, the value [B] of its sequence."""
        return torch.repeat_interleave(values, self.lengths, output_size=self.count)

    def rows(self) -> Tensor:
        """int32 [count]: first, first + 1, ... for each sequence."""
        rows = torch.arange(self.count, dtype=torch.int32, device=self.starts.device)
        return self.repeat(self.firsts - self.offsets) + rows if self.have_prompts else rows


def pool(hidden: Tensor, cu_seqlens: Tensor, modes: Sequence[Pooling], prompts: Prompts | None = None) -> Tensor:
    """Vectors float32 [B, len(modes) * H] from hidden states [T, H] of any float type and cu_seqlens int32 [B + 1]."""
    spans = Spans.of(cu_seqlens, len(hidden), prompts)
    pooled = [pool_by(mode, hidden, spans) for mode in modes]
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled, 1)


def pool_by(mode: Pooling, hidden: Tensor, spans: Spans) -> Tensor:
    match mode:
        case Pooling.CLS:
            return hidden.index_select(0, find_first_rows(spans)).float()
        case Pooling.LAST_TOKEN:
            return hidden.index_select(0, spans.stops - 1).float()
        case Pooling.MEAN:
            return reduce_spans(hidden, spans, "mean")
        case Pooling.MAX:
            return reduce_spans(hidden, spans, "max")
        case Pooling.MEAN_SQRT_LEN:
            return reduce_spans(hidden, spans, "mean") * spans.lengths.sqrt()[:, None]
        case Pooling.WEIGHTED_MEAN:
            return weighted_mean(hidden, spans)


def find_first_rows(spans: Spans) -> Tensor:
    """For a sequence that is all prompt, its first row."""
    if not spans.have_prompts:
        return spans.starts
    return torch.where(spans.firsts < spans.stops, spans.firsts, spans.starts)


def reduce_spans(hidden: Tensor, spans: Spans, mode: str) -> Tensor:
    """Uses `embedding_bag`, with a bag of rows for each sequence, because it is the only fused, vectorised segment
    reduction that PyTorch has on every device. Each bag is reduced row by row, independently of its neighbours. A bag
    without tokens gives 0."""
    return functional.embedding_bag(spans.rows(), hidden.float(), spans.offsets, mode=mode)


def weighted_mean(hidden: Tensor, spans: Spans) -> Tensor:
    """The weight of a row is its position in the sequence, from 1. The prompt counts, though it is left out."""
    rows = spans.rows()
    weights = (rows - spans.repeat(spans.starts) + 1).float()
    total = functional.embedding_bag(rows, hidden.float(), spans.offsets, mode="sum", per_sample_weights=weights)
    before, behind = (spans.firsts - spans.starts).float(), (spans.stops - spans.starts).float()
    weight = (behind * (behind + 1) - before * (before + 1)) / 2  # of firsts..stops, by Gauss
    return total / weight.clamp(min=1)[:, None]


def finish(vectors: Tensor, dimensions: Tensor | None = None, skips_normalization: Tensor | None = None) -> Tensor:
    """Zeroes the components of vectors [B, D] after the first `dimensions` int32 [B]; 0 keeps all. Then scales the
    vectors to length 1, except those with `skips_normalization` bool [B]."""
    if dimensions is not None:
        component = torch.arange(vectors.shape[1], device=vectors.device)
        is_cut = dimensions[:, None] > 0
        vectors = vectors.masked_fill((component >= dimensions[:, None]) & is_cut, 0)
    normalised = functional.normalize(vectors, dim=1)
    return normalised if skips_normalization is None else torch.where(skips_normalization[:, None], vectors, normalised)
