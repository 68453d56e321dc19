"""Token sequences in arrays: `Sequences` wait in the scheduler, and a `PackedBatch` of them runs on a backend.

Needs only numpy, so that the scheduler needs neither torch nor grpc.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from engine_svc.rows import ranges


class Output(enum.Enum):
    """What to compute for a sequence. The values are those of heddle.v1.Output."""

    VECTOR = 1
    TOKEN_VECTORS = 2
    SPARSE_VECTOR = 3
    LOGITS = 4
    TOKEN_LOGITS = 5
    COLBERT_VECTORS = 6

    __hash__ = object.__hash__  # Enum's own is a Python call, and each batch needs several


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller wants for a sequence."""

    output: Output = Output.VECTOR
    more_outputs: tuple[Output, ...] = ()  # computed in the same forward pass
    prompt_tokens: int = 0  # number of leading tokens that pooling leaves out
    skip_normalization: bool = False
    dimensions: int = 0  # 0 = all
    task: str = ""  # selects the adapter; "" = the adapter named by the pod's settings, if any

    @property
    def outputs(self) -> tuple[Output, ...]:
        return (self.output, *self.more_outputs)


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """n tokenized texts or pairs, end to end, with the same options."""

    token_ids: npt.NDArray[np.uint32]  # [starts[-1]]
    starts: npt.NDArray[np.int64]  # [n + 1]: where each sequence starts, then the end
    type_ids: npt.NDArray[np.uint8] | None = None  # None = all zero
    options: Options = Options()

    @classmethod
    def of(
        cls,
        token_ids: npt.NDArray[np.uint32],
        lengths: npt.NDArray[np.integer],
        type_ids: npt.NDArray[np.uint8] | None = None,
        options: Options = Options(),
    ) -> "Sequences":
        starts = np.zeros(len(lengths) + 1, np.int64)
        lengths.cumsum(out=starts[1:])
        return cls(token_ids, starts, type_ids, options)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def tokens(self) -> int:
        return self.starts.item(-1)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return self.starts[1:] - self.starts[:-1]

    def type_ids_or_zeros(self) -> npt.NDArray[np.uint8]:
        return np.zeros(len(self.token_ids), np.uint8) if self.type_ids is None else self.type_ids

    def part(self, start: int, stop: int) -> "Sequences":
        """Adjacent sequences, as views."""
        if start == 0 and stop == len(self.starts) - 1:
            return self
        first, last = self.starts.item(start), self.starts.item(stop)
        type_ids = None if self.type_ids is None else self.type_ids[first:last]
        return Sequences(self.token_ids[first:last], self.starts[start : stop + 1] - first, type_ids, self.options)

    def take(self, indices: npt.NDArray[np.integer]) -> "Sequences":
        """The sequences at these indices, in that order."""
        lengths = self.lengths[indices]
        tokens = ranges(self.starts[indices], lengths)
        type_ids = None if self.type_ids is None else self.type_ids[tokens]
        return Sequences.of(self.token_ids[tokens], lengths, type_ids, self.options)


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Sequences laid end to end, without padding: T tokens of B sequences. Their options may differ."""

    token_ids: npt.NDArray[np.int32]  # [T]
    type_ids: npt.NDArray[np.int32]  # [T]
    positions: npt.NDArray[np.int32]  # [T], from 0 in each sequence
    cu_seqlens: npt.NDArray[np.int32]  # [B + 1], where each sequence starts, then T
    options: Sequence[Options]  # each that occurs, once
    option_indices: npt.NDArray[np.intp]  # [B]: indices into `options`

    @classmethod
    def of(cls, parts: Sequence[Sequences]) -> "PackedBatch":
        if len(parts) == 1:
            [part] = parts
            lengths, token_ids, types = part.lengths, part.token_ids.astype(np.int32), part.type_ids
            options: Sequence[Options] = (part.options,)
            option_indices = np.zeros(len(lengths), np.intp)
        else:
            lengths = np.concatenate([part.lengths for part in parts])
            token_ids = np.concatenate([part.token_ids for part in parts]).astype(np.int32)
            types = None
            if any(part.type_ids is not None for part in parts):
                types = np.concatenate([part.type_ids_or_zeros() for part in parts])
            distinct: dict[Options, int] = {}
            indices = [distinct.setdefault(part.options, len(distinct)) for part in parts]
            options = tuple(distinct)
            option_indices = np.repeat(indices, [len(part) for part in parts])
        type_ids = np.zeros(len(token_ids), np.int32) if types is None else types.astype(np.int32)
        return cls(token_ids, type_ids, *positions_and_bounds(lengths), options, option_indices)

    def __len__(self) -> int:
        return len(self.option_indices)

    @property
    def tokens(self) -> int:
        return len(self.token_ids)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Tokens of each sequence [B]."""
        return self.cu_seqlens[1:] - self.cu_seqlens[:-1]

    @property
    def length_max(self) -> int:
        return int(self.lengths.max())

    def take(self, indices: npt.NDArray[np.integer]) -> "PackedBatch":
        """The sequences at these indices, in that order."""
        lengths = self.lengths[indices]
        tokens = ranges(self.cu_seqlens[indices], lengths)
        return PackedBatch(
            *(self.token_ids[tokens], self.type_ids[tokens]),
            *positions_and_bounds(lengths),
            *(self.options, self.option_indices[indices]),
        )

    @cached_property
    def output_indices(self) -> Mapping[Output, npt.NDArray[np.intp]]:
        """For each output that a sequence wants, the indices of the sequences that want it, ascending."""
        if len(self.options) == 1:
            return dict.fromkeys(self.options[0].outputs, np.arange(len(self.option_indices)))
        outputs = dict.fromkeys(output for options in self.options for output in options.outputs)
        return {output: self._find_indices(output) for output in outputs}

    def hash_sequences(self) -> npt.NDArray[np.uint64]:
        """[B]: a hash of the token ids and type ids of each sequence: the sum of its ids, each multiplied by a number
        for its position, modulo 2^64."""
        content = self.token_ids.astype(np.uint64)
        content += self.type_ids.astype(np.uint64) << np.uint64(32)
        content += np.uint64(1)  # so that sequences of zeros differ by their length
        content *= position_weights(self.length_max)[self.positions]
        hashes: npt.NDArray[np.uint64] = np.add.reduceat(content, self.cu_seqlens[:-1])
        return hashes

    def _find_indices(self, output: Output) -> npt.NDArray[np.intp]:
        wanted = [output in options.outputs for options in self.options]
        return np.arange(len(self)) if all(wanted) else np.flatnonzero(np.array(wanted)[self.option_indices])


def positions_and_bounds(lengths: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Positions [T] and cu_seqlens [B + 1] for sequences of these lengths."""
    cu_seqlens = np.zeros(len(lengths) + 1, np.int32)
    lengths.cumsum(out=cu_seqlens[1:])
    positions = np.arange(cu_seqlens[-1], dtype=np.int32)
    if len(lengths) > 1:
        positions -= np.repeat(cu_seqlens[:-1], lengths)
    return positions, cu_seqlens


_position_weights = np.zeros(0, np.uint64)


def position_weights(length: int) -> npt.NDArray[np.uint64]:
    """An odd number for each position of a sequence, for at least `length` of them."""
    global _position_weights  # noqa: PLW0603 - grows with the longest sequence so far; a race computes the same numbers
    weights = _position_weights
    if len(weights) < length:
        weights = mix_bits(np.arange(max(1024, 2 * length), dtype=np.uint64)) | np.uint64(1)
        _position_weights = weights
    return weights


def mix_bits(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Numbers that look random: the finalizer of splitmix64."""
    numbers = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
