"""Flash attention (Dao et al. 2022, arXiv 2205.14135) over a packed batch in one launch. It does what other flash
kernels cannot: float32, biases, soft-capping, unusual head sizes, cards before Ampere. Called by
`engine_svc.models.attention` and `engine_svc.models.architectures.deberta`.

Memory is linear in the tokens. Each program finds its sequence on the device, so the launch depends on shapes alone and
can be captured in a CUDA graph. The keys of a sequence are read in the same blocks and the same order in any batch, so
a sequence gets the same bits alone and in any batch.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.layout import Layout

LOG2_E = tl.constexpr(math.log2(math.e))  # scores are multiplied by it, because a GPU has exp2 but not exp


@dataclass(frozen=True, slots=True)
class RelativeBias:
    """DeBERTa's bias. The score of a query and a key gets c2p[head, row, bucket] + p2c[head, token, bucket], where
    `buckets` gives the bucket of their distance."""

    c2p: Tensor | None  # [heads, rows, buckets], contiguous
    p2c: Tensor | None  # [heads, tokens, buckets], contiguous
    buckets: Tensor  # integers [2 * longest - 1]; the first is for a key longest - 1 tokens before the query


@dataclass(frozen=True, slots=True)
class BlockSizes:
    head: int  # head_dim, rounded up to a power of two
    rows: int
    keys: int
    stages: int


@cache
def choose_block_sizes(head_dim: int, dtype: torch.dtype, device: torch.device) -> BlockSizes:
    """Triton 3.6 uses tensor cores for 16 bit, from Ampere on. Other products need smaller blocks, because they keep
    their operands in registers too. The tests check for all cards that registers and shared memory suffice."""
    head = max(16, triton.next_power_of_2(head_dim))
    has_tensor_cores = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if dtype == torch.float32 or not has_tensor_cores:
        return BlockSizes(head, rows=32 if head <= 64 else 16, keys=16, stages=1)
    return BlockSizes(head, rows=64, keys=64 if head <= 64 else 32, stages=2 if head <= 128 else 1)


def attend_by_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    pattern: AttentionPattern,
    *,
    relative_bias: RelativeBias | None = None,
) -> Tensor:
    """`query` is [rows, heads, head_dim], `key` and `value` are [tokens, kv heads, head_dim]. All are float32, float16
    or bfloat16. They may be strided, except in the last dimension. The result has the shape of `query` and is
    contiguous. Its rows after the last token of the layout are not written."""
    rows, heads, head_dim = query.shape
    result = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    blocks = choose_block_sizes(head_dim, query.dtype, query.device)
    sequences = len(layout.cu_seqlens_q) - 1
    scale = pattern.scale or head_dim**-0.5
    softcap = pattern.softcap
    c2p, p2c, buckets = (
        (None, None, None) if relative_bias is None else (relative_bias.c2p, relative_bias.p2c, relative_bias.buckets)
    )
    table = buckets if pattern.bias is None else pattern.bias
    by_bucket = p2c if c2p is None else c2p
    attend_kernel[rows // blocks.rows + sequences, heads](
        *(query, key, value, result, layout.cu_seqlens_q, layout.cu_seqlens, sequences),
        *(*query.stride()[:2], *key.stride()[:2], *value.stride()[:2]),
        *(scale * LOG2_E.value, None) if softcap is None else (scale / softcap, softcap * LOG2_E.value),
        *(pattern.window_left, pattern.window_right),
        *(pattern.bias, c2p, p2c, buckets),
        0 if table is None else table.shape[-1],
        *(0, 0) if by_bucket is None else by_bucket.stride()[:2],
        heads_per_kv_head=heads // key.shape[1],
        head_dim=head_dim,
        head_block=blocks.head,
        row_block=blocks.rows,
        key_block=blocks.keys,
        num_warps=4,
        num_stages=blocks.stages,
    )
    return result


@triton.jit(
    # These change from batch to batch, and Triton would compile other kernels for 1 and for multiples of 16.
    do_not_specialize=["sequences", "bias_head"],
    do_not_specialize_on_alignment=["cu_seqlens_q", "cu_seqlens"],
)
def attend_kernel(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    result: tl.tensor,
    cu_seqlens_q: tl.tensor,
    cu_seqlens: tl.tensor,
    sequences: tl.tensor,
    query_row: tl.tensor,  # strides
    query_head: tl.tensor,
    key_row: tl.tensor,
    key_head: tl.tensor,
    value_row: tl.tensor,
    value_head: tl.tensor,
    scale: tl.tensor,
    softcap: tl.tensor | None,
    window_left: tl.tensor | None,
    window_right: tl.tensor | None,
    bias: tl.tensor | None,
    c2p: tl.tensor | None,
    p2c: tl.tensor | None,
    buckets: tl.tensor | None,
    num_distances: tl.tensor,
    bias_head: tl.tensor,  # strides of `c2p` and `p2c`
    bias_row: tl.tensor,
    heads_per_kv_head: tl.constexpr,  # query heads that share a kv head
    head_dim: tl.constexpr,
    head_block: tl.constexpr,
    row_block: tl.constexpr,
    key_block: tl.constexpr,
) -> None:
    """Program [tile, head] computes one head of `row_block` rows of one sequence."""
    head = tl.program_id(1).to(tl.int64)
    first_row, num_rows, row, first_token, length = find_tile(cu_seqlens_q, cu_seqlens, sequences, row_block)
    if row >= num_rows:
        return
    rows = row + tl.arange(0, row_block)
    dims = tl.arange(0, head_block)
    queries = load_block(query + first_row * query_row + head * query_head, rows, num_rows, query_row, dims, head_dim)
    key += first_token * key_row + head // heads_per_kv_head * key_head
    value += first_token * value_row + head // heads_per_kv_head * value_head
    highest = tl.full([row_block], float("-inf"), tl.float32)
    weight = tl.zeros([row_block], tl.float32)
    total = tl.zeros([row_block, head_block], tl.float32)
    first, stop = find_keys(length - num_rows + row, row_block, length, window_left, window_right, key_block)
    for start in range(first, stop, key_block):
        keys = start + tl.arange(0, key_block)
        scores = tl.dot(queries, load_block(key, keys, length, key_row, dims, head_dim).T, input_precision="ieee")
        distance = keys[None, :] - (length - num_rows + rows)[:, None]  # the rows are those of the last tokens
        visible = find_visible(distance, rows < num_rows, keys < length, window_left, window_right)
        at_rows = head * bias_head + (first_row + rows) * bias_row
        at_keys = head * bias_head + (first_token + keys) * bias_row
        index = num_distances // 2 + distance  # in a table with an entry for each distance
        scores = add_relative_bias(scores, c2p, p2c, buckets, index, visible, at_rows, at_keys)
        scores = add_bias(apply_softcap(scores * scale, softcap), bias, head * num_distances + index, visible, LOG2_E)
        powers, decay, highest = softmax_step(tl.where(visible, scores, float("-inf")), highest)
        weight = weight * decay + tl.sum(powers, 1)
        values = load_block(value, keys, length, value_row, dims, head_dim)
        total = tl.dot(powers.to(values.dtype), values, total * decay[:, None], input_precision="ieee")
    store_rows(result, first_row + rows, rows < num_rows, head, dims, head_dim, total / weight[:, None])


@triton.jit
def find_tile(
    cu_seqlens_q: tl.tensor, cu_seqlens: tl.tensor, sequences: tl.tensor, row_block: tl.constexpr
) -> tl.tensor:
    """Returns the first row of the tile's sequence in the packed rows, the number of rows of the sequence, the first of
    these in the tile, the first token of the sequence, and its length.

    The tiles of sequence i start at cu_seqlens_q[i] // row_block + i. That leaves enough tiles for its rows, and needs
    no more in total than the full ones and one for each sequence. A spare tile starts after the sequence's rows."""
    tile = tl.program_id(0)
    sequence: tl.int32 = 0
    stop = sequences
    while stop - sequence > 1:
        middle = (sequence + stop) // 2
        if tl.load(cu_seqlens_q + middle) // row_block + middle <= tile:
            sequence = middle
        else:
            stop = middle
    first_row = tl.load(cu_seqlens_q + sequence)
    num_rows = tl.load(cu_seqlens_q + sequence + 1) - first_row
    first_token = tl.load(cu_seqlens + sequence)
    length = tl.load(cu_seqlens + sequence + 1) - first_token
    row = (tile - first_row // row_block - sequence) * row_block
    return first_row.to(tl.int64), num_rows, row, first_token.to(tl.int64), length


@triton.jit
def find_keys(
    token: tl.tensor,
    row_block: tl.constexpr,
    length: tl.tensor,
    window_left: tl.tensor | None,
    window_right: tl.tensor | None,
    key_block: tl.constexpr,
) -> tl.tensor:
    """The range of keys that the queries of a tile can see; `token` is the token of its first row. The range starts at
    a multiple of `key_block` in the sequence, so all tiles read the same blocks."""
    first = token * 0
    stop = length
    if window_left is not None:
        first = tl.maximum(token - window_left, 0) // key_block * key_block
    if window_right is not None:
        stop = tl.minimum(token + row_block + window_right, length)
    return first, stop


@triton.jit
def load_block(
    start: tl.tensor,
    rows: tl.tensor,
    count: tl.tensor,
    stride: tl.tensor,
    dims: tl.tensor,
    head_dim: tl.constexpr,
) -> tl.tensor:
    is_inside = (rows < count)[:, None] & (dims < head_dim)[None, :]
    return tl.load(start + rows.to(tl.int64)[:, None] * stride + dims[None, :], mask=is_inside, other=0.0)


@triton.jit
def find_visible(
    distance: tl.tensor,
    has_row: tl.tensor,
    has_key: tl.tensor,
    window_left: tl.tensor | None,
    window_right: tl.tensor | None,
) -> tl.tensor:
    visible = has_row[:, None] & has_key[None, :]
    if window_left is not None:
        visible &= distance >= -window_left
    if window_right is not None:
        visible &= distance <= window_right
    return visible


@triton.jit
def add_relative_bias(
    scores: tl.tensor,
    c2p: tl.tensor | None,
    p2c: tl.tensor | None,
    buckets: tl.tensor | None,
    index: tl.tensor,
    visible: tl.tensor,
    at_rows: tl.tensor,
    at_keys: tl.tensor,
) -> tl.tensor:
    if buckets is not None:
        place = tl.load(buckets + index, mask=visible, other=0)
        scores = add_bias(scores, c2p, at_rows[:, None] + place, visible, 1.0)
        scores = add_bias(scores, p2c, at_keys[None, :] + place, visible, 1.0)
    return scores


@triton.jit
def add_bias(
    scores: tl.tensor, table: tl.tensor | None, index: tl.tensor, visible: tl.tensor, factor: tl.constexpr
) -> tl.tensor:
    if table is not None:
        scores += tl.load(table + index, mask=visible, other=0.0).to(tl.float32) * factor
    return scores


@triton.jit
def apply_softcap(scores: tl.tensor, softcap: tl.tensor | None) -> tl.tensor:
    if softcap is not None:
        scores = softcap * (1 - 2 / (tl.exp2(2 * LOG2_E * scores) + 1))  # tanh
    return scores


@triton.jit
def softmax_step(scores: tl.tensor, highest: tl.tensor) -> tl.tensor:
    """A step of the online softmax. Returns exp2(scores - new maximum), the factor for the sums so far, and the new
    maximum."""
    highest_new = tl.maximum(highest, tl.max(scores, 1))
    base = tl.where(highest_new == float("-inf"), 0.0, highest_new)  # nothing was seen so far
    return tl.exp2(scores - base[:, None]), tl.exp2(highest - base), highest_new


@triton.jit
def store_rows(
    result: tl.tensor,
    rows: tl.tensor,
    has_row: tl.tensor,
    head: tl.tensor,
    dims: tl.tensor,
    head_dim: tl.constexpr,
    numbers: tl.tensor,
) -> None:
    at_rows = rows[:, None] * (tl.num_programs(1) * head_dim) + head * head_dim
    is_result = has_row[:, None] & (dims < head_dim)[None, :]
    tl.store(result + at_rows + dims[None, :], numbers.to(result.dtype.element_ty), mask=is_result)
