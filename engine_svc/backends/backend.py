"""The interface of a backend. `engine_svc.worker` calls it: one thread loads and closes it, some may run it at once."""

from collections.abc import Mapping
from typing import Protocol

from engine_svc.batch import Output, PackedBatch
from engine_svc.rows import Rows


class OutOfMemoryError(Exception):
    """The device has too little memory for this batch. What the batch had taken is free again."""


class DeviceLostError(Exception):
    """This process can use its device no more, as after an illegal memory access on a GPU. A new process can."""


class Backend(Protocol):
    """A loaded model. Only `run` may be called from several threads at once, and only where a worker is told to."""

    @property
    def outputs(self) -> frozenset[Output]:
        """What the model can be asked for; the first frame of another kind never gets here."""
        ...

    @property
    def data_type(self) -> str:
        """Number format of the computation: float32, bfloat16 or float16."""
        ...

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        """Runs one forward pass. Returns, for each output that a sequence of the batch asks for, the rows of the
        sequences that ask for it, in the order of the batch. Shapes of a sequence are those of heddle.v1.Output, and a
        sparse vector is its entries. Vectors are cut and normalised as the sequence asks; a cut one has zeros behind
        its dimensions, or all have the same width. NaN and Inf are returned as they are: the worker turns them into an
        error of that sequence. The pass may use `cores` cores of the CPU, or, with 0, all that the backend was loaded
        with; a GPU ignores it. Raises OutOfMemoryError and DeviceLostError; the worker runs a batch that raised
        anything but DeviceLostError again in halves."""
        ...

    def close(self) -> None: ...
