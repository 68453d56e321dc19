"""The interface of a head, chosen by the architecture or, for an embedder, by `load_head`, called after a forward."""

from collections.abc import Sequence as Sequences
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from engine_svc.batch import Output, PackedBatch

Array = npt.NDArray[np.float32]


class Head(Protocol):
    @property
    def outputs(self) -> frozenset[Output]:
        """What a sequence may ask for."""
        ...

    def __call__(self, hidden: Tensor, cu_seqlens: Tensor, batch: PackedBatch) -> Sequences[Array]:
        """Returns the arrays of `Backend.run`. `hidden` [rows, hidden], of any float type, may have more rows than the
        batch has tokens; `cu_seqlens` is the batch's, on its device."""
        ...
