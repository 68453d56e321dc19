"""From the hidden states of a packed batch to its answers: pooling, cut to fewer dimensions, normalisation.

Every backend that ends in hidden states uses it. Semantics are those of sentence-transformers' Pooling module; the
arithmetic is float32 whatever the model's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from heddle.sentence_modules import Pooling


def pool(hidden: Tensor, cu_seqlens: Tensor, prompt_tokens: Tensor, modes: Sequence[Pooling]) -> Tensor:
    """Vectors float32 [B, len(modes) * H] from hidden states [T or more, H] of any float type.

    `cu_seqlens` int32 [B + 1] says where each sequence lies; of each, the first `prompt_tokens` int32 [B] are left out.
    """
    starts, stops = cu_seqlens[:-1], cu_seqlens[1:]
    firsts = torch.minimum(starts + prompt_tokens, stops)
    pooled = [pool_by(mode, hidden, starts, firsts, stops) for mode in modes]
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled, 1)


def pool_by(mode: Pooling, hidden: Tensor, starts: Tensor, firsts: Tensor, stops: Tensor) -> Tensor:
    match mode:
        case Pooling.CLS:
            return hidden[torch.where(firsts < stops, firsts, starts)].float()
        case Pooling.LAST_TOKEN:
            return hidden[stops - 1].float()
        case Pooling.MEAN:
            return bags(hidden, firsts, stops, "mean")
        case Pooling.MAX:
            return bags(hidden, firsts, stops, "max")
        case Pooling.MEAN_SQRT_LEN:
            return bags(hidden, firsts, stops, "mean") * (stops - firsts).sqrt()[:, None]
        case Pooling.WEIGHTED_MEAN:
            return weighted_mean(hidden, starts, firsts, stops)


def bags(hidden: Tensor, firsts: Tensor, stops: Tensor, mode: str, weights: Tensor | None = None) -> Tensor:
    """A sequence is a bag of rows of an embedding table: the one fused, vectorised segment reduction that PyTorch has
    on every device. A bag without tokens gives 0."""
    lengths = stops - firsts
    offsets = lengths.cumsum(0, dtype=torch.int32) - lengths
    return functional.embedding_bag(
        rows_between(firsts, lengths, offsets), hidden.float(), offsets, mode=mode, per_sample_weights=weights
    )


def rows_between(firsts: Tensor, lengths: Tensor, offsets: Tensor) -> Tensor:
    """int32 [sum of lengths]: first, first + 1, ... for each sequence."""
    shift = torch.repeat_interleave(firsts - offsets, lengths)
    return shift + torch.arange(len(shift), dtype=torch.int32, device=shift.device)


def weighted_mean(hidden: Tensor, starts: Tensor, firsts: Tensor, stops: Tensor) -> Tensor:
    """Weights are the position in the sequence, from 1, the prompt counted though left out."""
    lengths = stops - firsts
    offsets = lengths.cumsum(0, dtype=torch.int32) - lengths
    rows = rows_between(firsts, lengths, offsets)
    weights = (rows - torch.repeat_interleave(starts, lengths) + 1).float()
    total = bags(hidden, firsts, stops, "sum", weights)
    before, behind = (firsts - starts).float(), (stops - starts).float()
    weight = (behind * (behind + 1) - before * (before + 1)) / 2  # of firsts..stops, by Gauss
    return total / weight.clamp(min=1)[:, None]


def finish(vectors: Tensor, dimensions: Tensor, is_normalized: Tensor) -> Tensor:
    """Cuts vectors [B, D] to their first `dimensions` int32 [B] components, which leaves zeros behind, then scales
    those that `is_normalized` bool [B] says to length 1."""
    component = torch.arange(vectors.shape[1], device=vectors.device)
    vectors = vectors.masked_fill(component >= dimensions[:, None], 0)
    return torch.where(is_normalized[:, None], functional.normalize(vectors, dim=1), vectors)
