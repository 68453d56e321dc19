"""Writes the weights of an artifact: plans the files of each folder, then converts or quantizes tensor by tensor.

Each thread has its own device and holds at most one tensor in memory, or a few rows if it only copies. The bytes do not
depend on the number of threads. `artifact` calls this.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import torch

from engine_svc.build.conversion import Conversion, get_torch_type
from engine_svc.build.formats import TensorSpec
from engine_svc.build.quantizer import Quantizer
from engine_svc.build.safetensors_writer import INDEX_NAME, FileWriter, PlannedFile, make_index, plan_files
from engine_svc.build.side_by_side import run_side_by_side
from engine_svc.models.stored_tensors import BLOCK_BYTES

# Called by any thread with the number of stored bytes just finished.
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Part:
    """A stored tensor and the tensors that replace it."""

    conversion: Conversion
    specs: tuple[TensorSpec, ...]
    is_quantized: bool

    @classmethod
    def of(cls, conversion: Conversion, quantizer: Quantizer | None) -> Self:
        planned = quantizer.plan(conversion.name, conversion.shape) if quantizer and conversion.is_linear else None
        if planned is None:
            return cls(conversion, (TensorSpec(conversion.name, conversion.shape, conversion.dtype),), False)
        return cls(conversion, tuple(planned), True)

    @property
    def stored_bytes(self) -> int:
        return math.prod(self.conversion.shape) * get_torch_type(self.conversion.stored).itemsize


@dataclass(frozen=True, slots=True)
class FolderPlan:
    path: str  # relative to the artifact; "." for its own folder
    parts: Sequence[Part]
    files: Sequence[PlannedFile]

    @classmethod
    def of(
        cls, path: str, conversions: Sequence[Conversion], quantizer: Quantizer | None, file_bytes_max: int | None
    ) -> Self:
        parts = [Part.of(conversion, quantizer) for conversion in conversions]
        return cls(path, parts, plan_files(list(group_specs(parts)), file_bytes_max))

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.size for file in self.files)

    @property
    def stored_bytes(self) -> int:
        """Bytes to read."""
        return sum(part.stored_bytes for part in self.parts)


def group_parts(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Groups fused linears, whose scales are computed together."""
    numbers = itertools.count()
    for _, members in itertools.groupby(parts, lambda part: part.conversion.group or next(numbers)):
        yield list(members)


def group_specs(parts: Sequence[Part]) -> Iterator[list[TensorSpec]]:
    """Orders the tensors of fused linears: all weights, then all scales of one kind, then those of the next."""
    for members in group_parts(parts):
        rows = itertools.zip_longest(*(part.specs for part in members))
        yield [spec for row in rows for spec in row if spec is not None]


def write_folders(
    plans: Sequence[FolderPlan],
    output: Path,
    quantizer: Quantizer | None,
    devices: Sequence[torch.device],
    progress: Progress,
) -> None:
    """Writes the files of `plans` below `output`, with a thread for each of `devices`. Raises CheckpointError if the
    source cannot be read, and OSError if writing fails."""

    def run(device: torch.device, work: tuple[Sequence[Part], FileWriter]) -> None:
        parts, files = work
        if device.type == "cuda":
            torch.cuda.set_device(device)  # Triton launches kernels on the current device
        for part in parts:
            write_part(part, files, quantizer, device)
            progress(part.stored_bytes)

    with ExitStack() as stack:
        work: list[tuple[Sequence[Part], FileWriter]] = []
        for plan in plans:
            folder = output / plan.path
            folder.mkdir(parents=True, exist_ok=True)
            files = stack.enter_context(FileWriter(folder, plan.files))
            if len(plan.files) > 1:
                (folder / INDEX_NAME).write_bytes(make_index(plan.files))
            work += [(parts, files) for parts in group_parts(plan.parts)]
        run_side_by_side([partial(run, device) for device in devices], work)


@torch.inference_mode()
def write_part(part: Part, files: FileWriter, quantizer: Quantizer | None, device: torch.device) -> None:
    if not part.is_quantized:
        copy_rows(part, files)
        return
    assert quantizer is not None
    stored = part.conversion.stored
    weight = stored.read(...)
    tensors = quantizer.quantize(part.conversion.name, weight.to(device))
    for spec, tensor in zip(part.specs, tensors, strict=True):
        check_tensor(spec, tensor)
        files.write(spec.name, tensor.cpu())
    stored.release(weight)


def check_tensor(spec: TensorSpec, tensor: torch.Tensor) -> None:
    if tuple(tensor.shape) != tuple(spec.shape) or tensor.dtype != spec.dtype:
        raise AssertionError(f"{spec.name} was planned as {spec}, but is {tuple(tensor.shape)} of {tensor.dtype}")


def copy_rows(part: Part, files: FileWriter) -> None:
    [spec] = part.specs
    stored = part.conversion.stored
    if not spec.shape:
        files.write(spec.name, stored.read(...).to(spec.dtype))
        return
    step = max(1, BLOCK_BYTES // max(1, part.stored_bytes // max(1, spec.shape[0])))
    position = 0
    for start in range(0, spec.shape[0], step):
        rows = stored.read(slice(start, min(start + step, spec.shape[0])))
        position += files.write(spec.name, rows.to(spec.dtype), position)
        stored.release(rows)
