"""The values that pass through the engine: a `Sequence` waits in the scheduler, a `PackedBatch` runs on a backend.

Numpy only, so that the scheduler and the tests of both need neither torch nor grpc.
"""

import enum
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Sequences
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt


class Output(enum.Enum):
    """What is wanted of a sequence; values are those of heddle.v1.Output."""

    VECTOR = 1
    TOKEN_VECTORS = 2
    SPARSE_VECTOR = 3
    LOGITS = 4
    TOKEN_LOGITS = 5
    COLBERT_VECTORS = 6


Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sequence:
    """One tokenized text or pair. Equal sequences have equal results, so the scheduler computes them once."""

    token_ids: bytes  # uint32 little-endian [tokens], special tokens included
    type_ids: bytes = b""  # uint8 [tokens]; empty = all zero
    prompt_tokens: int = 0  # so many leading tokens are left out of pooling
    output: Output = Output.VECTOR
    more_outputs: tuple[Output, ...] = ()  # computed in the same forward pass
    skip_normalization: bool = False
    dimensions: int = 0  # 0 = all
    task: str = ""  # selects the adapter; "" = the adapter of the pod's settings, if any

    @property
    def tokens(self) -> int:
        return len(self.token_ids) // 4

    @property
    def outputs(self) -> tuple[Output, ...]:
        return (self.output, *self.more_outputs)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Sequences laid end to end, without padding: T tokens of B sequences."""

    sequences: Sequences[Sequence]  # B
    token_ids: npt.NDArray[np.int32]  # [T]
    type_ids: npt.NDArray[np.int32]  # [T]
    positions: npt.NDArray[np.int32]  # [T], from 0 in each sequence
    cu_seqlens: npt.NDArray[np.int32]  # [B + 1], where each sequence starts, and T

    @classmethod
    def of(cls, sequences: Sequences[Sequence]) -> "PackedBatch":
        lengths = np.fromiter((sequence.tokens for sequence in sequences), np.int32, len(sequences))
        cu_seqlens = np.zeros(len(sequences) + 1, np.int32)
        np.cumsum(lengths, out=cu_seqlens[1:])
        token_ids = np.frombuffer(b"".join(sequence.token_ids for sequence in sequences), "<u4").astype(np.int32)
        positions = np.arange(cu_seqlens[-1], dtype=np.int32) - np.repeat(cu_seqlens[:-1], lengths)
        if any(sequence.type_ids for sequence in sequences):
            packed = b"".join(sequence.type_ids or bytes(sequence.tokens) for sequence in sequences)
            type_ids = np.frombuffer(packed, np.uint8).astype(np.int32)
        else:
            type_ids = np.zeros(cu_seqlens[-1], np.int32)
        return cls(sequences, token_ids, type_ids, positions, cu_seqlens)

    @property
    def tokens(self) -> int:
        return int(self.cu_seqlens[-1])

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Tokens of each sequence [B]."""
        return self.cu_seqlens[1:] - self.cu_seqlens[:-1]

    @property
    def length_max(self) -> int:
        return int(self.lengths.max())


def split_by_sequence(arrays: Iterable[Array], sequences: Iterable[Sequence]) -> Iterator[list[Array]]:
    """Splits the result of `Backend.run` into a list of arrays for each sequence, one array per output."""
    rest = iter(arrays)
    return (list(islice(rest, 1 + len(sequence.more_outputs))) for sequence in sequences)
