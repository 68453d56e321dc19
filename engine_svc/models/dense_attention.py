"""Attention among sequences of one length, [sequences, heads, length, head_dim]: whichever form suits them.

Long ones go to PyTorch's own fused attention, which never holds the scores of all pairs of tokens; where a pattern
hides tokens, biases or caps scores, a tile of the queries at a time, so that memory grows with the length and not with
its square. Short ones are batched products, and so are middling ones where the hardware multiplies bfloat16: PyTorch's
form does not use it. `engine_svc.models.attention` calls it for each run of a batch.
"""

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.linear import is_prepacked

# Up to this length PyTorch's attention spends more on its blocks than on their contents.
SHORT_TOKENS = 16

VECTOR_NUMBERS = 16  # float32 in the widest register of a CPU

# Of a tile: what is held at once of masks or scores, and how many queries it has.
TILE_NUMBERS_MAX = 1 << 22
TILE_QUERIES = range(32, 257)

# From so many tokens on, and up to so many scores, a sequence is attended to by products in its own type. oneDNN
# compiles a primitive for each shape, in a millisecond, and keeps some thousand: for shorter ones that is not worth it,
# and a shape for each number of sequences would be too many.
MIDDLING_TOKENS = 128
SCORES_MAX = 1 << 24


def attend_densely(query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
    """Queries may be fewer than keys and values: then they are those of the last tokens."""
    length, queries = key.shape[2], query.shape[2]
    if length <= SHORT_TOKENS:
        return attend_by_products(query, key, value, pattern, mask_of_all(query, key, pattern))
    if pattern.is_plain(length):
        attends = attend_each_by_products if suits_products(query, key) else attend_fused
        return attends(query, key, value, pattern)
    if pattern.softcap is None and pattern.bias is None and pattern.sees_all_before(length) and queries == length:
        return attend_fused(query, key, value, pattern, is_causal=True)
    return attend_by_tiles(query, key, value, pattern)


def attend_fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: AttentionPattern,
    mask: Tensor | None = None,
    *,
    is_causal: bool = False,
) -> Tensor:
    """`mask` is [heads or 1, queries, keys]."""
    enable_gqa = query.shape[1] != key.shape[1]
    if mask is not None:
        mask = mask[None]  # with three dimensions PyTorch leaves its fused form for one that holds all scores
    return functional.scaled_dot_product_attention(
        query, key, value, mask, is_causal=is_causal, scale=pattern.scale, enable_gqa=enable_gqa
    )


def suits_products(query: Tensor, key: Tensor) -> bool:
    _, heads, queries, _ = query.shape
    keys = key.shape[2]
    is_middling = keys >= MIDDLING_TOKENS and heads * queries * keys <= SCORES_MAX
    return is_middling and query.dtype == torch.bfloat16 and is_prepacked(query.device, query.dtype)


def attend_each_by_products(query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
    """One sequence after the other, in bfloat16, for a pattern that hides nothing. Sums are float32 inside the products
    and the softmax; scores are rounded between them, as transformers' eager attention does. For all-MiniLM-L6-v2 the
    cosine to float32 is that of PyTorch's fused form, which does not round them."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scale = pattern.scale or query.shape[3] ** -0.5
    result = torch.empty_like(query)
    for queries, keys, values, attended in zip(query, key, value, result, strict=True):
        scores = torch.baddbmm(query.new_empty(1), queries, keys.transpose(1, 2), beta=0, alpha=scale)
        attended.copy_(torch.bmm(scores.softmax(2), values))
    return result


def attend_by_products(
    query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern, mask: Tensor | None
) -> Tensor:
    """The formula in float32, all sequences and heads at once. Holds the scores of all pairs of tokens."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    # Made contiguous, so that the products find the same strides whatever the batch: with others MKL rounds otherwise.
    query, key, value = (tensor.contiguous().float() for tensor in (query, key, value))
    scores = (query @ key.transpose(2, 3)).mul_(pattern.scale or query.shape[3] ** -0.5)
    if pattern.softcap is not None:
        scores = scores.div_(pattern.softcap).tanh_().mul_(pattern.softcap)
    if mask is not None:
        scores += mask
    return softmax(scores) @ value


def softmax(scores: Tensor) -> Tensor:
    """Of the last dimension; `scores` may be overwritten. PyTorch's own goes number by number through rows that are
    shorter than a vector register of 16: five times as slow as this for rows of 7."""
    length = scores.shape[-1]
    if length >= VECTOR_NUMBERS or scores.is_cuda:
        return scores.softmax(-1)
    powers = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    sums = powers.view(-1, length) @ powers.new_ones(length)
    return powers.div_(sums.view(*powers.shape[:-1], 1))


def attend_by_tiles(query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
    attends = attend_fused if pattern.softcap is None else attend_by_products
    dtype = query.dtype if pattern.softcap is None else torch.float32
    length = key.shape[2]
    first = length - query.shape[2]  # token of the first query
    result = torch.empty_like(query)
    for start in range(first, length, step := queries_of_tile(query, length, pattern)):
        queries = range(start, min(start + step, length))
        keys = pattern.keys_of(queries, length)
        seen = slice(keys.start, keys.stop)
        mask = pattern.mask(queries, keys, dtype, query.device)
        own = slice(queries.start - first, queries.stop - first)
        result[:, :, own] = attends(query[:, :, own], key[:, :, seen], value[:, :, seen], pattern, mask)
    return result


def queries_of_tile(query: Tensor, length: int, pattern: AttentionPattern) -> int:
    sequences, heads, _, _ = query.shape
    keys = len(pattern.keys_of(range(TILE_QUERIES.stop), length))
    of_mask = keys * (1 if pattern.bias is None else heads)
    numbers = of_mask if pattern.softcap is None else keys * heads * sequences  # fused attention holds no scores
    return min(max(TILE_NUMBERS_MAX // numbers, TILE_QUERIES.start), TILE_QUERIES.stop - 1)


def mask_of_all(query: Tensor, key: Tensor, pattern: AttentionPattern) -> Tensor | None:
    length = key.shape[2]
    if pattern.bias is None and pattern.sees_all(length):
        return None
    queries = range(length - query.shape[2], length)
    return pattern.mask(queries, range(length), torch.float32, query.device)
