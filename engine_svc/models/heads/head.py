"""The interface of a head, which is called after the forward pass of the transformer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HeadOutputs:
    """The outputs of a batch, in one tensor for one copy to the host."""

    flat: Tensor  # float32 [n], on the device of the model
    split: Callable[[Array], Mapping[Output, Rows]]  # from `flat` on the host to what `Backend.run` returns

    @classmethod
    def of(cls, output: Output, rows: Tensor, read: Callable[[Array], Rows] = Rows) -> "HeadOutputs":
        """For a single output. `rows` is float32 [rows, width]; `read` makes the results of the sequences from it."""
        return join_parts({output: Part(rows, read)})


class Head(Protocol):
    @property
    def outputs(self) -> frozenset[Output]:
        """What a sequence may ask for."""
        ...

    def __call__(self, hidden: Tensor, tokens: PackedTokens, batch: PackedBatch) -> HeadOutputs:
        """`hidden` [rows, hidden], of any float type, may have more rows than the batch has tokens. Nothing is copied
        between host and device: all that the head needs is in `tokens`."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """One output of the sequences that ask for it."""

    rows: Tensor  # float32 [rows, width]
    read: Callable[[Array], Rows] = Rows  # from the rows on the host


def join_parts(parts: Mapping[Output, Part]) -> HeadOutputs:
    """`parts` are all outputs that the sequences of the batch ask for."""
    readers = [(output, part.rows.shape, part.read) for output, part in parts.items()]
    bounds = [0, *accumulate(part.rows.numel() for part in parts.values())]

    def split(host: Array) -> Mapping[Output, Rows]:
        return {
            output: read(host[start:stop].reshape(shape))
            for (output, shape, read), (start, stop) in zip(readers, pairwise(bounds), strict=True)
        }

    flat = [part.rows.flatten() for part in parts.values()]
    return HeadOutputs(flat[0] if len(flat) == 1 else torch.cat(flat), split)


def read_by_length(lengths: npt.NDArray[np.integer]) -> Callable[[Array], Rows]:
    """Reads rows of tokens into sequences of these lengths."""
    return lambda rows: Rows(rows, lengths)
