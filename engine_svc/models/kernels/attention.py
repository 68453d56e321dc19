"""Flash attention (Dao et al. 2022, arXiv 2205.14135) over a packed batch in one launch. It does what other flash
kernels cannot: float32, biases, soft-capping, unusual head sizes, cards before Ampere. Called by
`engine_svc.models.attention` and `engine_svc.models.disentangled_attention`.

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
class Places:
    """DeBERTa's bias. The score of a query and a key gets of_queries[head, row, place] + of_keys[head, token, place],
    where `of_distance` gives the place for their distance."""

    of_queries: Tensor | None  # [heads, rows, places], contiguous
    of_keys: Tensor | None  # [heads, tokens, places], contiguous
    of_distance: Tensor  # integers [2 * longest - 1]; the first is for a key longest - 1 tokens before the query


@dataclass(frozen=True, slots=True)
class Blocks:
    head: int  # head_dim, rounded up to a power of two
    rows: int
    keys: int
    stages: int


@cache
def blocks_for(head_dim: int, dtype: torch.dtype, device: torch.device) -> Blocks:
    """Triton 3.6 uses tensor cores for 16 bit, from Ampere on. Other products need smaller blocks, because they keep
    their operands in registers too. The tests check for all cards that registers and shared memory suffice."""
    head = max(16, triton.next_power_of_2(head_dim))
    has_tensor_cores = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if dtype == torch.float32 or not has_tensor_cores:
        return Blocks(head, rows=32 if head <= 64 else 16, keys=16, stages=1)
    return Blocks(head, rows=64, keys=64 if head <= 64 else 32, stages=2 if head <= 128 else 1)


def attend_by_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    pattern: AttentionPattern,
    *,
    places: Places | None = None,
) -> Tensor:
    """`query` is [rows, heads, head_dim], `key` and `value` are [tokens, key heads, head_dim]. All are float32, float16
    or bfloat16. They may be strided, except in the last dimension. The result has the shape of `query` and is
    contiguous. Its rows after the last token of the layout are not written."""
    rows, heads, head_dim = query.shape
    result = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    blocks = blocks_for(head_dim, query.dtype, query.device)
    sequences = len(layout.cu_rows) - 1
    scale = pattern.scale or head_dim**-0.5
    softcap = pattern.softcap
    of_queries, of_keys, of_distance = (
        (None, None, None) if places is None else (places.of_queries, places.of_keys, places.of_distance)
    )
    table = of_distance if pattern.bias is None else pattern.bias
    product = of_keys if of_queries is None else of_queries
    attend_kernel[rows // blocks.rows + sequences, heads](
        *(query, key, value, result, layout.cu_rows, layout.cu_seqlens, sequences),
        *(*query.stride()[:2], *key.stride()[:2], *value.stride()[:2]),
        *(scale * LOG2_E.value, None) if softcap is None else (scale / softcap, softcap * LOG2_E.value),
        *(pattern.behind, pattern.ahead),
        *(pattern.bias, of_queries, of_keys, of_distance),
        0 if table is None else table.shape[-1],
        *(0, 0) if product is None else product.stride()[:2],
        groups=heads // key.shape[1],
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
    do_not_specialize=["sequences", "product_head"],
    do_not_specialize_on_alignment=["cu_rows", "cu_seqlens"],
)
def attend_kernel(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    result: tl.tensor,
    cu_rows: tl.tensor,
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
    behind: tl.tensor | None,
    ahead: tl.tensor | None,
    bias: tl.tensor | None,
    of_queries: tl.tensor | None,
    of_keys: tl.tensor | None,
    of_distance: tl.tensor | None,
    distances: tl.tensor,
    product_head: tl.tensor,  # strides of `of_queries` and `of_keys`
    product_row: tl.tensor,
    groups: tl.constexpr,  # heads that share a key head
    head_dim: tl.constexpr,
    head_block: tl.constexpr,
    row_block: tl.constexpr,
    key_block: tl.constexpr,
) -> None:
    """Program [tile, head] computes one head of `row_block` rows of one sequence."""
    head = tl.program_id(1).to(tl.int64)
    first_row, own, row, first_token, length = find_tile(cu_rows, cu_seqlens, sequences, row_block)
    if row >= own:
        return
    rows = row + tl.arange(0, row_block)
    dims = tl.arange(0, head_block)
    queries = load_block(query + first_row * query_row + head * query_head, rows, own, query_row, dims, head_dim)
    key += first_token * key_row + head // groups * key_head
    value += first_token * value_row + head // groups * value_head
    highest = tl.full([row_block], float("-inf"), tl.float32)
    weight = tl.zeros([row_block], tl.float32)
    total = tl.zeros([row_block, head_block], tl.float32)
    first, stop = find_keys(length - own + row, row_block, length, behind, ahead, key_block)
    for start in range(first, stop, key_block):
        keys = start + tl.arange(0, key_block)
        scores = tl.dot(queries, load_block(key, keys, length, key_row, dims, head_dim).T, input_precision="ieee")
        distance = keys[None, :] - (length - own + rows)[:, None]  # the rows are those of the last tokens
        is_seen = near(distance, (rows < own)[:, None] & (keys < length)[None, :], behind, ahead)
        at_rows = head * product_head + (first_row + rows) * product_row
        at_keys = head * product_head + (first_token + keys) * product_row
        index = distances // 2 + distance  # in a table by distance
        scores = placed(scores, of_queries, of_keys, of_distance, index, is_seen, at_rows, at_keys)
        scores = biased(capped(scores * scale, softcap), bias, head * distances + index, is_seen, LOG2_E)
        powers, fading, highest = raised(tl.where(is_seen, scores, float("-inf")), highest)
        weight = weight * fading + tl.sum(powers, 1)
        values = load_block(value, keys, length, value_row, dims, head_dim)
        total = tl.dot(powers.to(values.dtype), values, total * fading[:, None], input_precision="ieee")
    store_rows(result, first_row + rows, rows < own, head, dims, head_dim, total / weight[:, None])


@triton.jit
def find_tile(cu_rows: tl.tensor, cu_seqlens: tl.tensor, sequences: tl.tensor, row_block: tl.constexpr) -> tl.tensor:
    """The first row of the tile's sequence in the packed rows, how many rows the sequence has, which of these is the
    first of the tile, the first token of the sequence, and its length.

    The tiles of sequence i start at cu_rows[i] // row_block + i. That leaves enough tiles for its rows, and needs no
    more in all than the full ones and one for each sequence. A spare tile starts after the sequence's rows."""
    tile = tl.program_id(0)
    sequence: tl.int32 = 0
    stop = sequences
    while stop - sequence > 1:
        middle = (sequence + stop) // 2
        if tl.load(cu_rows + middle) // row_block + middle <= tile:
            sequence = middle
        else:
            stop = middle
    first_row = tl.load(cu_rows + sequence)
    own = tl.load(cu_rows + sequence + 1) - first_row
    first_token = tl.load(cu_seqlens + sequence)
    length = tl.load(cu_seqlens + sequence + 1) - first_token
    row = (tile - first_row // row_block - sequence) * row_block
    return first_row.to(tl.int64), own, row, first_token.to(tl.int64), length


@triton.jit
def find_keys(
    token: tl.tensor,
    row_block: tl.constexpr,
    length: tl.tensor,
    behind: tl.tensor | None,
    ahead: tl.tensor | None,
    key_block: tl.constexpr,
) -> tl.tensor:
    """The range of keys that the queries of a tile can see; `token` is that of its first row. It starts at a multiple
    of `key_block` in the sequence, so all tiles read the same blocks."""
    first = token * 0
    stop = length
    if behind is not None:
        first = tl.maximum(token - behind, 0) // key_block * key_block
    if ahead is not None:
        stop = tl.minimum(token + row_block + ahead, length)
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
    is_there = (rows < count)[:, None] & (dims < head_dim)[None, :]
    return tl.load(start + rows.to(tl.int64)[:, None] * stride + dims[None, :], mask=is_there, other=0.0)


@triton.jit
def near(distance: tl.tensor, is_there: tl.tensor, behind: tl.tensor | None, ahead: tl.tensor | None) -> tl.tensor:
    if behind is not None:
        is_there &= distance >= -behind
    if ahead is not None:
        is_there &= distance <= ahead
    return is_there


@triton.jit
def placed(
    scores: tl.tensor,
    of_queries: tl.tensor | None,
    of_keys: tl.tensor | None,
    of_distance: tl.tensor | None,
    index: tl.tensor,
    is_seen: tl.tensor,
    at_rows: tl.tensor,
    at_keys: tl.tensor,
) -> tl.tensor:
    if of_distance is not None:
        place = tl.load(of_distance + index, mask=is_seen, other=0)
        scores = biased(scores, of_queries, at_rows[:, None] + place, is_seen, 1.0)
        scores = biased(scores, of_keys, at_keys[None, :] + place, is_seen, 1.0)
    return scores


@triton.jit
def biased(
    scores: tl.tensor, table: tl.tensor | None, index: tl.tensor, is_seen: tl.tensor, factor: tl.constexpr
) -> tl.tensor:
    if table is not None:
        scores += tl.load(table + index, mask=is_seen, other=0.0).to(tl.float32) * factor
    return scores


@triton.jit
def capped(scores: tl.tensor, softcap: tl.tensor | None) -> tl.tensor:
    if softcap is not None:
        scores = softcap * (1 - 2 / (tl.exp2(2 * LOG2_E * scores) + 1))  # tanh
    return scores


@triton.jit
def raised(scores: tl.tensor, highest: tl.tensor) -> tl.tensor:
    """A step of the online softmax: exp2(scores - new maximum), the factor for what was summed up before, and the new
    maximum."""
    rise = tl.maximum(highest, tl.max(scores, 1))
    base = tl.where(rise == float("-inf"), 0.0, rise)  # nothing was seen so far
    return tl.exp2(scores - base[:, None]), tl.exp2(highest - base), rise


@triton.jit
def store_rows(
    result: tl.tensor,
    rows: tl.tensor,
    is_own: tl.tensor,
    head: tl.tensor,
    dims: tl.tensor,
    head_dim: tl.constexpr,
    numbers: tl.tensor,
) -> None:
    at_rows = rows[:, None] * (tl.num_programs(1) * head_dim) + head * head_dim
    is_result = is_own[:, None] & (dims < head_dim)[None, :]
    tl.store(result + at_rows + dims[None, :], numbers.to(result.dtype.element_ty), mask=is_result)
