"""Where each sequence of a packed batch lies: its lengths on the host, and their sums on the device. `PackedTokens`
makes a layout for each batch, and attention reads it in every layer."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from torch import Tensor

BUCKET_MIN = 16


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent sequences of equal length, each with as many tokens that have rows of their own."""

    start: int  # first token
    first_row: int
    sequences: int
    length: int  # tokens of each
    own_tokens: int  # how many of these have rows, the last ones

    @property
    def stop(self) -> int:
        return self.start + self.sequences * self.length

    @property
    def stop_row(self) -> int:
        return self.first_row + self.sequences * self.own_tokens


@dataclass(frozen=True, eq=False)
class Layout:
    """B sequences of T tokens. A sequence's last tokens have rows of their own; the others, if any, share those of an
    equal prefix."""

    lengths: Sequence[int]  # [B]
    own_lengths: Sequence[int]  # [B]: tokens with rows of their own
    cu_seqlens: Tensor  # int32 [B + 1], on the device
    cu_rows: Tensor  # int32 [B + 1], on the device: the same for rows
    row_of_token: Tensor | None = None  # integers [T], where tokens share rows

    @classmethod
    def of(cls, lengths: Sequence[int], cu_seqlens: Tensor) -> Self:
        """Each token has a row. `cu_seqlens` is that of the lengths, on the device that computes."""
        return cls(lengths, lengths, cu_seqlens, cu_seqlens)

    @cached_property
    def tokens(self) -> int:
        return sum(self.lengths)

    @cached_property
    def length_max(self) -> int:
        return max(self.lengths)

    @cached_property
    def query_bucket(self) -> int:
        """The most rows of a sequence, rounded up so that a captured pass serves many batches."""
        return bucket_of(max(self.own_lengths))

    @cached_property
    def key_bucket(self) -> int:
        """The most tokens of a sequence, rounded up for the same reason."""
        return bucket_of(self.length_max)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """In the order of the tokens. For attention that takes sequences of one length at a time."""
        return tuple(runs_of(self.lengths, self.own_lengths))

    def to_tokens(self, rows: Tensor) -> Tensor:
        """[rows, ...] as [at least T, ...]."""
        return rows if self.row_of_token is None else rows.index_select(0, self.row_of_token)


def runs_of(lengths: Sequence[int], own_lengths: Sequence[int]) -> list[Run]:
    runs: list[Run] = []
    start = first_row = 0
    for (length, own), equal in itertools.groupby(zip(lengths, own_lengths, strict=True)):
        runs.append(Run(start, first_row, sum(1 for _ in equal), length, own))
        start, first_row = runs[-1].stop, runs[-1].stop_row
    return runs


def bucket_of(length: int) -> int:
    """The next power of two. Never 1, which flash kernels treat differently."""
    return max(BUCKET_MIN, 1 << (length - 1).bit_length())
