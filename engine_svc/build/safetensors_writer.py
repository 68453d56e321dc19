"""Plans and writes safetensors files. Unlike the library, holds only the rows that it is writing in memory.

A plan computes the header and each tensor's offset from names, shapes and types. Tensors are then written in any order,
by any number of threads. Equal plans and tensors give equal bytes. `weights_writer` calls this.
"""

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from engine_svc.build.formats import TensorSpec
from engine_svc.models.stored_tensors import TYPE_NAMES

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"

# Bytes. The data starts at a multiple of this, and so does every tensor whose size is a multiple.
ALIGNMENT = 64

# Errors of file systems that cannot reserve space.
UNSUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


def count_bytes(spec: TensorSpec) -> int:
    return math.prod(spec.shape) * spec.dtype.itemsize


@dataclass(frozen=True, slots=True)
class PlannedFile:
    name: str
    header: bytes  # with its length, and spaces up to ALIGNMENT
    offsets: Mapping[str, int]  # first byte of each tensor in the file
    size: int  # bytes

    @classmethod
    def of(cls, name: str, specs: Sequence[TensorSpec]) -> Self:
        """Places tensors in the order of `specs`, without gaps, as the format requires. Tensors whose size is not a
        multiple of ALIGNMENT come last, wide types first, so that all tensors stay aligned."""
        even = [spec for spec in specs if count_bytes(spec) % ALIGNMENT == 0]
        odd = [spec for spec in specs if count_bytes(spec) % ALIGNMENT]
        ordered = [*even, *sorted(odd, key=lambda spec: -spec.dtype.itemsize)]
        entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offsets: dict[str, int] = {}
        position = 0
        for spec in ordered:
            stop = position + count_bytes(spec)
            entries[spec.name] = {
                "dtype": TYPE_NAMES[spec.dtype],
                "shape": list(spec.shape),
                "data_offsets": [position, stop],
            }
            offsets[spec.name] = position
            position = stop
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-(len(text) + 8) % ALIGNMENT)
        start = len(text) + 8
        return cls(
            name,
            len(text).to_bytes(8, "little") + text,
            {tensor: start + offset for tensor, offset in offsets.items()},
            start + position,
        )


def plan_files(groups: Sequence[Sequence[TensorSpec]], file_bytes_max: int | None) -> list[PlannedFile]:
    """Returns one file, or several with at most `file_bytes_max` bytes of tensors each. A group stays in one file, even
    if it is larger."""
    shards: list[list[TensorSpec]] = [[]]
    used = 0
    for group in groups:
        size = sum(map(count_bytes, group))
        if shards[-1] and file_bytes_max is not None and used + size > file_bytes_max:
            shards.append([])
            used = 0
        shards[-1] += group
        used += size
    if len(shards) == 1:
        return [PlannedFile.of(SINGLE_NAME, shards[0])]
    count = len(shards)
    return [
        PlannedFile.of(f"model-{number:05d}-of-{count:05d}.safetensors", shard)
        for number, shard in enumerate(shards, 1)
    ]


def make_index(files: Sequence[PlannedFile]) -> bytes:
    """The content of model.safetensors.index.json."""
    total = sum(file.size - len(file.header) for file in files)
    file_of = {name: file.name for file in files for name in file.offsets}
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(file_of.items()))}
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


class FileWriter:
    """Writes the files of one folder. `write` is thread-safe. All methods raise OSError."""

    def __init__(self, folder: Path, files: Sequence[PlannedFile]) -> None:
        self._places = {
            name: (index, offset) for index, file in enumerate(files) for name, offset in file.offsets.items()
        }
        self._paths = [folder / file.name for file in files]
        self._handles: list[int] = []
        try:
            for file, path in zip(files, self._paths, strict=True):
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                self._handles.append(handle)
                with add_path_to_errors(path):
                    reserve(handle, file.size)
                    write_all(handle, memoryview(file.header), 0)
        except BaseException:
            self.close()
            raise

    def write(self, name: str, rows: Tensor, first_byte: int = 0) -> int:
        """Writes rows at `first_byte` of the tensor. Returns the number of bytes written."""
        index, offset = self._places[name]
        content = to_bytes(rows)
        with add_path_to_errors(self._paths[index]):
            write_all(self._handles[index], content, offset + first_byte)
        return len(content)

    def close(self) -> None:
        for handle in self._handles:
            os.close(handle)
        self._handles.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def add_path_to_errors(path: Path) -> Iterator[None]:
    """Adds the path to an OSError, because errors of an open file lack it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def to_bytes(rows: Tensor) -> memoryview:
    return rows.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


def reserve(handle: int, size: int) -> None:
    """Reserves the space, so that a full disk is found before hours of work."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return os.ftruncate(handle, size)
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        os.ftruncate(handle, size)


def write_all(handle: int, content: memoryview, offset: int) -> None:
    while len(content):
        written = os.pwrite(handle, content, offset)
        content, offset = content[written:], offset + written
