"""The interface of a head, chosen by the architecture or, for an embedder, by `load_head`, called after a forward."""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Sequences
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine_svc.batch import Output, PackedBatch, Sequence
from engine_svc.models.packed_tokens import PackedTokens

Array = npt.NDArray[np.float32]

# From rows on the host to the arrays of the sequences that the rows belong to, in their order.
Cut = Callable[[Array], Iterable[Array]]


@dataclass(frozen=True, slots=True)
class HeadOutputs:
    """The answer of a batch, for one copy to the host."""

    flat: Tensor  # float32 [n], on the device of the model
    split: Callable[[Array], list[Array]]  # from `flat` on the host to the arrays of `Backend.run`: views where it can

    @classmethod
    def of(cls, rows: Tensor, cut: Cut = list) -> "HeadOutputs":
        """Of one kind of output, `rows` float32 [rows, width]. Without `cut` each row is the array of a sequence."""
        shape = rows.shape
        return cls(rows.flatten(), lambda host: list(cut(host.reshape(shape))))


class Head(Protocol):
    @property
    def outputs(self) -> frozenset[Output]:
        """What a sequence may ask for."""
        ...

    def __call__(self, hidden: Tensor, tokens: PackedTokens, batch: PackedBatch) -> HeadOutputs:
        """`hidden` [rows, hidden], of any float type, may have more rows than the batch has tokens. Nothing is copied
        between host and device: what the head needs to know is in `tokens`."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of output of the sequences that ask for it."""

    rows: Tensor  # float32 [rows, width]
    cut: Cut = list


def joined(parts: Mapping[Output, Part], sequences: Sequences[Sequence]) -> HeadOutputs:
    """`parts` are all outputs that the sequences of the batch ask for."""
    if len(parts) == 1:
        [part] = parts.values()
        return HeadOutputs.of(part.rows, part.cut)
    cuts = [(output, part.rows.shape, part.cut) for output, part in parts.items()]
    bounds = [0, *accumulate(part.rows.numel() for part in parts.values())]

    def split(host: Array) -> list[Array]:
        arrays = {
            output: iter(cut(host[start:stop].reshape(shape)))
            for (output, shape, cut), (start, stop) in zip(cuts, pairwise(bounds), strict=True)
        }
        return [next(arrays[output]) for sequence in sequences for output in sequence.outputs]

    return HeadOutputs(torch.cat([part.rows.flatten() for part in parts.values()]), split)


def by_tokens(rows: Array, sequences: Iterable[Sequence]) -> list[Array]:
    """The rows of the tokens of each sequence, [tokens, width]."""
    bounds = accumulate((sequence.tokens for sequence in sequences), initial=0)
    return [rows[start:stop] for start, stop in pairwise(bounds)]
