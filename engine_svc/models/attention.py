"""Attention inside each sequence of a packed batch, without padding. The transformer's layers call `attend`.

On CUDA one kernel computes the whole batch: an installed flash kernel if it can, else our own. On a CPU, and on CUDA
without either, adjacent sequences of equal length are a [sequences, heads, length, head_dim] view of the packed tokens,
and each such group is one call; a batch sorted by length has the fewest groups. Sequences never meet in a product or a
sum, so NaN stays in its sequence, and a sequence has the same result alone and in any batch, to the last bits of
float32.

On a CPU, long sequences go to PyTorch's fused attention, which never holds the scores of all pairs of tokens. If a
pattern hides tokens, or biases or caps scores, a tile of the queries is computed at a time, so that memory grows with
the length and not with its square. Short sequences are batched matrix products. So are middling ones if the hardware
multiplies bfloat16, which PyTorch's fused attention does not use.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.flash_attention import Attend, find_flash_attention
from engine_svc.models.kernels.launch import runs_kernels
from engine_svc.models.layout import EqualLengths, Layout
from engine_svc.models.onednn import has_16_bit_products

# Up to this length PyTorch's attention spends more time on its blocks than on their contents.
SHORT_TOKENS = 16

VECTOR_NUMBERS = 16  # float32 in the widest register of a CPU

# The numbers of a tile's masks or scores that are held at once, and how many queries a tile has.
TILE_NUMBERS_MAX = 1 << 22
TILE_QUERIES = range(32, 257)

# From so many tokens on, and up to so many scores, a sequence is computed by products in bfloat16. oneDNN compiles a
# primitive for each shape, in a millisecond, and keeps some thousand. That is not worth it for shorter sequences, and
# one shape for each number of sequences would be too many.
MIDDLING_TOKENS = 128
SCORES_MAX = 1 << 24


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
    """Softmax attention of each token to the tokens of its own sequence that the pattern lets it see.

    `query` is [rows, heads, head_dim]; `key` and `value` are [rows, kv heads, head_dim]. They may be strided, except in
    the last dimension. The result has the shape of `query` and is contiguous. Its rows after the last token of the
    layout are 0 on the CPU and undefined on CUDA.
    """
    attend_packed: Attend = attend_by_group
    if query.is_cuda:
        has_bias, has_softcap = pattern.bias is not None, pattern.softcap is not None
        attend_packed = choose_kernel(query.device, query.dtype, query.shape[-1], has_bias, has_softcap)
    return attend_packed(query, layout.gather_tokens(key), layout.gather_tokens(value), layout, pattern)


@cache
def choose_kernel(device: torch.device, dtype: torch.dtype, head_dim: int, has_bias: bool, has_softcap: bool) -> Attend:
    flash = None if has_bias else find_flash_attention(device, dtype, head_dim, has_softcap)
    return flash or find_own_kernel(device) or attend_by_group


def find_own_kernel(device: torch.device) -> Attend | None:
    if not runs_kernels(device):
        return None
    from engine_svc.models.kernels.attention import attend_by_kernel

    return attend_by_kernel


def attend_by_group(query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
    result = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    for group in layout.groups:
        if group.query_length:
            attended = attend_equal(
                view_rows(query, group), view_tokens(key, group), view_tokens(value, group), pattern
            )
            view_rows(result, group).copy_(attended)
    result[layout.groups[-1].stop_row :] = 0
    return result


def view_tokens(tokens: Tensor, group: EqualLengths) -> Tensor:
    """View [sequences, heads, length, head_dim] of a group's tokens."""
    own = tokens[group.start_token : group.stop_token]
    return own.view(group.num_sequences, group.length, *tokens.shape[1:]).transpose(1, 2)


def view_rows(rows: Tensor, group: EqualLengths) -> Tensor:
    """View [sequences, heads, query length, head_dim] of a group's rows."""
    own = rows[group.start_row : group.stop_row]
    return own.view(group.num_sequences, group.query_length, *rows.shape[1:]).transpose(1, 2)


def attend_equal(query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
    """Attention among sequences of one length, [sequences, heads, length, head_dim]. Queries may be fewer than keys and
    values; then they are those of the last tokens."""
    length, queries = key.shape[2], query.shape[2]
    if length <= SHORT_TOKENS:
        return attend_by_matmul(query, key, value, pattern, full_mask(query, key, pattern))
    if pattern.is_plain(length):
        attend_plain = attend_each_by_matmul if suits_matmul(query, key) else attend_fused
        return attend_plain(query, key, value, pattern)
    if pattern.softcap is None and pattern.bias is None and pattern.is_causal(length) and queries == length:
        return attend_fused(query, key, value, pattern, is_causal=True)
    return attend_by_tile(query, key, value, pattern)


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


def suits_matmul(query: Tensor, key: Tensor) -> bool:
    _, heads, queries, _ = query.shape
    keys = key.shape[2]
    is_middling = keys >= MIDDLING_TOKENS and heads * queries * keys <= SCORES_MAX
    return is_middling and query.dtype == torch.bfloat16 and has_16_bit_products(query.device, query.dtype)


def attend_each_by_matmul(query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
    """One sequence after the other, in bfloat16, for a pattern that hides nothing. Sums are float32 inside the products
    and the softmax. Scores are rounded between them, as in transformers' eager attention. For all-MiniLM-L6-v2 the
    cosine to float32 is that of PyTorch's fused attention, which does not round them."""
    key, value = repeat_kv(query, key, value)
    scale = pattern.scale or query.shape[3] ** -0.5
    result = torch.empty_like(query)
    for queries, keys, values, attended in zip(query, key, value, result, strict=True):
        scores = torch.baddbmm(query.new_empty(1), queries, keys.transpose(1, 2), beta=0, alpha=scale)
        attended.copy_(torch.bmm(scores.softmax(2), values))
    return result


def attend_by_matmul(
    query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern, mask: Tensor | None
) -> Tensor:
    """The formula in float32, all sequences and heads at once. Holds the scores of all pairs of tokens."""
    key, value = repeat_kv(query, key, value)
    # Made contiguous so that the products find the same strides in any batch; with others MKL rounds differently.
    query, key, value = (tensor.contiguous().float() for tensor in (query, key, value))
    scores = (query @ key.transpose(2, 3)).mul_(pattern.scale or query.shape[3] ** -0.5)
    if pattern.softcap is not None:
        scores = scores.div_(pattern.softcap).tanh_().mul_(pattern.softcap)
    if mask is not None:
        scores += mask
    return softmax(scores) @ value


def repeat_kv(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values with as many heads as the queries."""
    repeats = query.shape[1] // key.shape[1]
    if repeats == 1:
        return key, value
    return key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)


def softmax(scores: Tensor) -> Tensor:
    """Over the last dimension; may overwrite `scores`. PyTorch's softmax goes number by number through rows that are
    shorter than a vector register of 16 numbers: five times as slow as this for rows of 7."""
    length = scores.shape[-1]
    if length >= VECTOR_NUMBERS or scores.is_cuda:
        return scores.softmax(-1)
    powers = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    sums = powers.view(-1, length) @ powers.new_ones(length)
    return powers.div_(sums.view(*powers.shape[:-1], 1))


def attend_by_tile(query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
    attend_tile = attend_fused if pattern.softcap is None else attend_by_matmul
    dtype = query.dtype if pattern.softcap is None else torch.float32
    length = key.shape[2]
    first = length - query.shape[2]  # token of the first query
    result = torch.empty_like(query)
    for start in range(first, length, step := choose_tile_queries(query, length, pattern)):
        queries = range(start, min(start + step, length))
        keys = pattern.visible_keys(queries, length)
        mask = pattern.mask(queries, keys, dtype, query.device)
        seen, own = slice(keys.start, keys.stop), slice(queries.start - first, queries.stop - first)
        result[:, :, own] = attend_tile(query[:, :, own], key[:, :, seen], value[:, :, seen], pattern, mask)
    return result


def choose_tile_queries(query: Tensor, length: int, pattern: AttentionPattern) -> int:
    sequences, heads, _, _ = query.shape
    keys = len(pattern.visible_keys(range(TILE_QUERIES.stop), length))
    mask_numbers = keys * (1 if pattern.bias is None else heads)
    # Fused attention holds no scores.
    numbers = mask_numbers if pattern.softcap is None else keys * heads * sequences
    return min(max(TILE_NUMBERS_MAX // numbers, TILE_QUERIES.start), TILE_QUERIES.stop - 1)


def full_mask(query: Tensor, key: Tensor, pattern: AttentionPattern) -> Tensor | None:
    length = key.shape[2]
    if pattern.bias is None and pattern.sees_all(length):
        return None
    queries = range(length - query.shape[2], length)
    return pattern.mask(queries, range(length), torch.float32, query.device)
