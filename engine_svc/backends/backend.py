"""The interface of a backend. `engine_svc.lane` calls it, from one thread that owns it from load to close."""

from collections.abc import Sequence as Sequences
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine_svc.batch import Output, PackedBatch


class Backend(Protocol):
    """A loaded model. Not thread-safe: one thread loads, runs and closes it."""

    @property
    def outputs(self) -> frozenset[Output]:
        """What the model can be asked for; the first frame of another kind never gets here."""
        ...

    @property
    def data_type(self) -> str:
        """Of the computation: float32, bfloat16 or float16."""
        ...

    def run(self, batch: PackedBatch) -> Sequences[npt.NDArray[np.float32]]:
        """One forward pass: per sequence an array of the shape that heddle.v1.Output states, cut and normalised as
        the sequence asks. An item's NaN or Inf is returned as it is: the lane turns it into that item's error."""
        ...

    def close(self) -> None: ...
