"""Rotates queries and keys in place, in the output of the QKV projection. If a model normalizes heads, the same launch
does that first. `engine_svc.models.rotary` calls it."""

import triton
import triton.language as tl
from torch import Tensor

from engine_svc.models.kernels.launch import choose_tile
from engine_svc.models.norms import RMSNorm
from engine_svc.models.rotary import Rotation


@triton.jit(do_not_specialize=["count"])
def rotate_kernel(
    heads: tl.tensor,
    cosines: tl.tensor,
    sines: tl.tensor,
    weight: tl.tensor,
    count: tl.tensor,
    epsilon: tl.tensor,
    ROW_STRIDE: tl.constexpr,
    ROW_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    REST: tl.constexpr,
    HEADS: tl.constexpr,
    COLUMNS: tl.constexpr,
    REST_COLUMNS: tl.constexpr,
) -> None:
    """A program rotates HEADS heads, which may belong to several rows: the `count` heads of all rows are numbered in
    one sequence. The last REST numbers of a head are normalized but not rotated."""
    index = (tl.program_id(0) * HEADS + tl.arange(0, HEADS))[:, None]
    row, head = (index // ROW_HEADS).to(tl.int64), index % ROW_HEADS
    column = tl.arange(0, COLUMNS)[None, :]
    is_inside = (index < count) & (column < HALF)
    one = heads + row * ROW_STRIDE + head * HEAD_DIM + column
    other = one + HALF
    first = tl.load(one, is_inside, other=0.0).to(tl.float32)
    second = tl.load(other, is_inside, other=0.0).to(tl.float32)
    if weight is not None:
        squares = tl.sum(first * first + second * second, 1, keep_dims=True)
        if REST:
            rest_column = 2 * HALF + tl.arange(0, REST_COLUMNS)[None, :]
            is_rest = (index < count) & (rest_column < HEAD_DIM)
            rest_place = heads + row * ROW_STRIDE + head * HEAD_DIM + rest_column
            rest = tl.load(rest_place, is_rest, other=0.0).to(tl.float32)
            squares += tl.sum(rest * rest, 1, keep_dims=True)
        scale = tl.rsqrt(squares / HEAD_DIM + epsilon)
        head_weight = weight + head * HEAD_DIM
        first *= scale * tl.load(head_weight + column, is_inside, other=0.0)
        second *= scale * tl.load(head_weight + HALF + column, is_inside, other=0.0)
        if REST:
            rest *= scale * tl.load(head_weight + rest_column, is_rest, other=0.0)
    cosine = tl.load(cosines + row * HALF + column, is_inside, other=0.0).to(tl.float32)
    sine = tl.load(sines + row * HALF + column, is_inside, other=0.0).to(tl.float32)
    # Several threads may read the same number, so all must have read before one writes over it.
    tl.debug_barrier()
    tl.store(one, (first * cosine - second * sine).to(heads.dtype.element_ty), is_inside)
    tl.store(other, (second * cosine + first * sine).to(heads.dtype.element_ty), is_inside)
    if weight is not None and REST:
        tl.store(rest_place, rest.to(heads.dtype.element_ty), is_rest)


def rotate_in_place(heads: Tensor, rotation: Rotation, norm: RMSNorm | None) -> None:
    """`heads` is [rows, heads, head_dim]. Rows may be strided; the heads of a row are contiguous. The weight of `norm`
    is [heads, head_dim]."""
    cosines, sines = rotation
    rows, row_heads, head_dim = heads.shape
    assert heads.stride()[1:] == (head_dim, 1)
    half = cosines.shape[-1]
    rest = head_dim - 2 * half
    tile = choose_tile(half)
    rotate_kernel[(tile.num_programs(rows * row_heads),)](
        *(heads, cosines, sines, None if norm is None else norm.weight, rows * row_heads),
        *(0.0 if norm is None else norm.epsilon, heads.stride(0), row_heads, head_dim, half, rest),
        *(tile.rows, tile.columns, triton.next_power_of_2(max(1, rest))),
        num_warps=tile.warps,
    )
