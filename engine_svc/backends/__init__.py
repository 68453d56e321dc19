"""Backends compute the outputs of a batch, each with another model library. This is their interface, which the worker
calls: one of its threads loads and closes the backend, and one or more run it."""

from collections.abc import Mapping
from typing import Protocol

from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch


class OutOfMemoryError(Exception):
    """The device has too little memory for this batch. What the batch had taken is free again."""


class DeviceLostError(Exception):
    """This process cannot use its device any more, as after an illegal memory access on a GPU. A new process can."""


class Backend(Protocol):
    """A loaded model. Only `run` may be called from several threads at once, and only if the worker has several
    threads."""

    @property
    def outputs(self) -> frozenset[Output]:
        """What the model can compute. The servicer refuses everything else."""
        ...

    @property
    def data_type(self) -> str:
        """Number format of the computation: float32, bfloat16 or float16."""
        ...

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        """Runs one forward pass.

        Returns, for each output in `batch.output_indices`, the rows of the sequences that want it, in the order of the
        batch. The shapes are those of heddle.v1.Output; a sparse vector is its entries. Vectors are cut and normalised
        as their options say; a cut vector has zeros after its dimensions, unless all have the same width. NaN and Inf
        are returned as they are: `batch_runner` turns them into an error of that sequence.

        The pass may use `cores` CPU cores, or with 0 all cores that the backend was loaded with. A GPU ignores it.
        Raises OutOfMemoryError and DeviceLostError. After any other error than DeviceLostError the batch is run again
        in halves."""
        ...

    def close(self) -> None: ...
