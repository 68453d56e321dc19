"""Token sequences as columns: `Sequences` wait in the scheduler, a `PackedBatch` of them runs on a backend.

Numpy only, so that the scheduler and the tests of both need neither torch nor grpc.
"""

import enum
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as List
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from engine_svc.rows import ranges


class Output(enum.Enum):
    """What is wanted of a sequence; values are those of heddle.v1.Output."""

    VECTOR = 1
    TOKEN_VECTORS = 2
    SPARSE_VECTOR = 3
    LOGITS = 4
    TOKEN_LOGITS = 5
    COLBERT_VECTORS = 6

    __hash__ = object.__hash__  # that of Enum is a Python call, made several times for each batch


@dataclass(frozen=True, slots=True)
class Options:
    """What is wanted of a sequence."""

    output: Output = Output.VECTOR
    more_outputs: tuple[Output, ...] = ()  # computed in the same forward pass
    prompt_tokens: int = 0  # so many leading tokens are left out of pooling
    skip_normalization: bool = False
    dimensions: int = 0  # 0 = all
    task: str = ""  # selects the adapter; "" = the adapter of the pod's settings, if any

    @property
    def outputs(self) -> tuple[Output, ...]:
        return (self.output, *self.more_outputs)


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """n tokenized texts or pairs, end to end, of which the same is wanted."""

    token_ids: npt.NDArray[np.uint32]  # [starts[-1]]
    starts: npt.NDArray[np.int64]  # [n + 1]: where each sequence starts, and the end
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

    def part(self, start: int, stop: int) -> "Sequences":
        """Some adjacent sequences, as views."""
        if start == 0 and stop == len(self.starts) - 1:
            return self
        first, last = self.starts.item(start), self.starts.item(stop)
        type_ids = None if self.type_ids is None else self.type_ids[first:last]
        return Sequences(self.token_ids[first:last], self.starts[start : stop + 1] - first, type_ids, self.options)

    def take(self, places: npt.NDArray[np.integer]) -> "Sequences":
        """The sequences at these places."""
        lengths = self.lengths[places]
        tokens = ranges(self.starts[places], lengths)
        type_ids = None if self.type_ids is None else self.type_ids[tokens]
        return Sequences.of(self.token_ids[tokens], lengths, type_ids, self.options)


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Sequences laid end to end, without padding: T tokens of B sequences. Different things may be wanted of them."""

    token_ids: npt.NDArray[np.int32]  # [T]
    type_ids: npt.NDArray[np.int32]  # [T]
    positions: npt.NDArray[np.int32]  # [T], from 0 in each sequence
    cu_seqlens: npt.NDArray[np.int32]  # [B + 1], where each sequence starts, and T
    options: List[Options]  # all that occur, each once
    option_of: npt.NDArray[np.intp]  # [B]: places in `options`

    @classmethod
    def of(cls, parts: List[Sequences]) -> "PackedBatch":
        if len(parts) == 1:
            [part] = parts
            lengths, token_ids, types = part.lengths, part.token_ids.astype(np.int32), part.type_ids
            options: List[Options] = (part.options,)
            option_of = np.zeros(len(part), np.intp)
        else:
            lengths = np.concatenate([part.lengths for part in parts])
            token_ids = np.concatenate([part.token_ids for part in parts]).astype(np.int32)
            types = joined_types(parts)
            numbers: dict[Options, int] = {}
            of_part = [numbers.setdefault(part.options, len(numbers)) for part in parts]
            options = tuple(numbers)
            option_of = np.repeat(of_part, [len(part) for part in parts])
        type_ids = np.zeros(len(token_ids), np.int32) if types is None else types.astype(np.int32)
        return cls(token_ids, type_ids, *bounds_of(lengths), options, option_of)

    def __len__(self) -> int:
        return len(self.option_of)

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

    def take(self, places: npt.NDArray[np.integer]) -> "PackedBatch":
        """The sequences at these places, in that order."""
        lengths = self.lengths[places]
        tokens = ranges(self.cu_seqlens[places], lengths)
        return PackedBatch(
            *(self.token_ids[tokens], self.type_ids[tokens]),
            *bounds_of(lengths),
            *(self.options, self.option_of[places]),
        )

    @cached_property
    def places(self) -> Mapping[Output, npt.NDArray[np.intp]]:
        """The places of the sequences that want an output, ascending, for all outputs that one wants."""
        if len(self.options) == 1:
            return dict.fromkeys(self.options[0].outputs, np.arange(len(self.option_of)))
        outputs = dict.fromkeys(output for options in self.options for output in options.outputs)
        return {output: self._find_places(output) for output in outputs}

    def _find_places(self, output: Output) -> npt.NDArray[np.intp]:
        wanted = [output in options.outputs for options in self.options]
        return np.arange(len(self)) if all(wanted) else np.flatnonzero(np.array(wanted)[self.option_of])


def joined_types(parts: Iterable[Sequences]) -> npt.NDArray[np.uint8] | None:
    parts = tuple(parts)
    if all(part.type_ids is None for part in parts):
        return None
    return np.concatenate(
        [np.zeros(part.tokens, np.uint8) if part.type_ids is None else part.type_ids for part in parts]
    )


def bounds_of(lengths: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Positions [T] and cu_seqlens [B + 1] of sequences of these lengths."""
    cu_seqlens = np.zeros(len(lengths) + 1, np.int32)
    lengths.cumsum(out=cu_seqlens[1:])
    positions = np.arange(cu_seqlens[-1], dtype=np.int32)
    if len(lengths) > 1:
        positions -= np.repeat(cu_seqlens[:-1], lengths)
    return positions, cu_seqlens
