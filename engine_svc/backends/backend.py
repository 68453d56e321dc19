"""The interface of a backend. `engine_svc.lane` calls it: one thread loads and closes it, some may run it at once."""

from collections.abc import Sequence as Sequences
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine_svc.batch import Output, PackedBatch


class OutOfMemoryError(Exception):
    """The device has too little memory for this batch. What the batch had taken is free again."""


class DeviceLostError(Exception):
    """This process can use its device no more, as after an illegal memory access on a GPU. A new process can."""


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
        """Runs one forward pass. Returns one array for each output of each sequence, in the order of the sequences and
        of their outputs. Shapes are those of heddle.v1.Output; vectors are cut and normalised as the sequence asks. A
        sparse vector is either [vocabulary] or [2, entries]: ascending indices, then values. NaN and Inf are returned
        as they are: the lane turns them into an error of that item. The pass may use `cores` cores of the CPU, or, with
        0, all that the backend was loaded with; a GPU ignores it. Raises OutOfMemoryError and DeviceLostError; the lane
        runs a batch that raised anything but DeviceLostError again in halves."""
        ...

    def close(self) -> None: ...
