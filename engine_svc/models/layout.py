"""Where each sequence of a packed batch lies: lengths on the host, and their cumulative sums on the device.
`PackedTokens` makes a layout for each batch, and attention reads it in every layer."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from torch import Tensor

BUCKET_MIN = 16


@dataclass(frozen=True, slots=True)
class EqualLengths:
    """Adjacent sequences with equal numbers of tokens and of rows."""

    start_token: int
    start_row: int
    num_sequences: int
    length: int  # tokens of each
    query_length: int  # rows of each, which are those of its last tokens

    @property
    def stop_token(self) -> int:
        return self.start_token + self.num_sequences * self.length

    @property
    def stop_row(self) -> int:
        return self.start_row + self.num_sequences * self.query_length


@dataclass(frozen=True, eq=False)
class Layout:
    """B sequences of T tokens. The last tokens of a sequence have rows of their own, with which they attend as queries.
    The tokens before them, if any, share the rows of an equal prefix."""

    lengths: Sequence[int]  # [B]: tokens
    query_lengths: Sequence[int]  # [B]: tokens with rows of their own
    cu_seqlens: Tensor  # int32 [B + 1], on the device: cumulative lengths
    cu_seqlens_q: Tensor  # int32 [B + 1], on the device: cumulative query lengths
    row_of_token: Tensor | None = None  # integers [T], if tokens share rows

    @classmethod
    def of(cls, lengths: Sequence[int], cu_seqlens: Tensor) -> Self:
        """Each token has a row. `cu_seqlens` are the cumulative lengths, on the device."""
        return cls(lengths, lengths, cu_seqlens, cu_seqlens)

    @cached_property
    def num_tokens(self) -> int:
        return sum(self.lengths)

    @cached_property
    def max_length(self) -> int:
        return max(self.lengths)

    @cached_property
    def max_seqlen_q(self) -> int:
        """The most rows of a sequence, rounded up so that a CUDA graph serves many batches."""
        return round_up_length(max(self.query_lengths))

    @cached_property
    def max_seqlen_k(self) -> int:
        """The most tokens of a sequence, rounded up for the same reason."""
        return round_up_length(self.max_length)

    @cached_property
    def groups(self) -> tuple[EqualLengths, ...]:
        """In the order of the tokens. For attention that takes sequences of one length at a time."""
        return tuple(group_by_length(self.lengths, self.query_lengths))

    def gather_tokens(self, rows: Tensor) -> Tensor:
        """Copies each row to its tokens: [rows, ...] to [at least T, ...]."""
        return rows if self.row_of_token is None else rows.index_select(0, self.row_of_token)


def group_by_length(lengths: Sequence[int], query_lengths: Sequence[int]) -> list[EqualLengths]:
    groups: list[EqualLengths] = []
    start_token = start_row = 0
    for (length, query_length), equal in itertools.groupby(zip(lengths, query_lengths, strict=True)):
        groups.append(EqualLengths(start_token, start_row, sum(1 for _ in equal), length, query_length))
        start_token, start_row = groups[-1].stop_token, groups[-1].stop_row
    return groups


def round_up_length(length: int) -> int:
    """The next power of two. Never 1, which flash kernels treat differently."""
    return max(BUCKET_MIN, 1 << (length - 1).bit_length())
