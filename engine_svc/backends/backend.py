"""The interface of a backend. `engine_svc.lane` calls it: one thread loads and closes it, some may run it at once."""

from collections.abc import Sequence as Sequences
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine_svc.batch import Output, PackedBatch


class Backend(Protocol):
    """A loaded model. Only `run` may be called from several threads at once, and only where a lane is told to."""

    @property
    def outputs(self) -> frozenset[Output]:
        """What the model can be asked for; the first frame of another kind never gets here."""
        ...

    @property
    def data_type(self) -> str:
        """Of the computation: float32, bfloat16 or float16."""
        ...

    def run(self, batch: PackedBatch, cores: int = 0) -> Sequences[npt.NDArray[np.float32]]:
        """One forward pass: for each sequence, one after the other, an array for each of its outputs, of the shape that
        heddle.v1.Output states, cut and normalised as the sequence asks. A sparse vector is [vocabulary], or its
        entries [2, entries]: indices, ascending, and values. An item's NaN or Inf is returned as it is: the lane turns
        it into that item's error. `cores` of the CPU are this pass's, 0 all that the backend was loaded with; what
        computes elsewhere needs none."""
        ...

    def close(self) -> None: ...
