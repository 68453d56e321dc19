"""Reads the safetensors of a checkpoint, a block of rows at a time, in the data type and on the device of the model.

The file is mapped anew for each block: pages that were read stay in the process as long as a mapping does, and so the
peak is the model and one block, not the model twice; nor the table of a large vocabulary, which may be most of a model,
in the file's type beside its own copy. Called by what builds a model: the architectures, and the parts that know how to
load themselves.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine_svc.models.low_rank import Changes
from heddle.checkpoint_files import CheckpointError, read_json

SINGLE_FILE = "model.safetensors"
SHARD_INDEX = "model.safetensors.index.json"
PICKLED_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")

# Names of TensorFlow's layer norms, found in the oldest checkpoints.
LEGACY_NAMES = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))

# Bytes of a number, by the names that safetensors has for the types.
FLOAT_TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}

# In the file; a row is never divided. Opening the file once more takes a fraction of the time that copying these does.
BLOCK_BYTES = 8 << 20

# Buffers that old versions of transformers saved; what they hold follows from the config.
BUFFERS = ("position_ids", "token_type_ids", "rotary_emb.inv_freq", "masked_bias")


class Weights:
    """The tensors of a checkpoint by name. Names are those of the bare model; a checkpoint saved from a model with a
    head has them below `prefix`."""

    def __init__(self, folder: Path, *, dtype: torch.dtype, device: torch.device, prefix: str = "") -> None:
        self.folder = folder
        self.dtype = dtype
        self.device = device
        self._prefix = prefix
        self._file_of = files_by_tensor(folder)
        self._unused = {name for name in self._file_of if not name.endswith(BUFFERS)}

    def has(self, name: str) -> bool:
        return any(candidate in self._file_of for candidate in self._candidates(name))

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """A copy of the tensor, in the model's type or in `dtype`; on the device "meta" its shape alone is read. Raises
        CheckpointError if it is missing or of another shape."""
        taken = torch.empty(*shape, dtype=dtype or self.dtype, device=self.device)
        for rows, block in self._blocks(name, shape):
            taken[rows] = block
        return taken

    def take_rows(self, name: str, shape: Sequence[int], rows: Sequence[int], dtype: torch.dtype) -> Tensor:
        """As `take`, some rows of it: no others are read."""
        stored = self._stored(name, shape)
        taken = torch.empty(len(rows), *shape[1:], dtype=dtype, device=self.device)
        if not taken.is_meta:
            for index, row in enumerate(rows):
                taken[index] = stored.read(slice(row, row + 1))[0]
        return taken

    def changes_of(self, parts: Sequence[tuple[str, int]], inputs: int) -> Changes:
        """What adapters change of the linears, or the tables, of these names and numbers of outputs, which run as one;
        () without any. Raises CheckpointError."""
        return ()

    def _blocks(self, name: str, shape: Sequence[int]) -> Iterator[tuple[slice, Tensor]]:
        """All rows of the tensor, in the type of the file; none on the device "meta". A block lies in the mapped file:
        whoever keeps one keeps its pages."""
        stored = self._stored(name, shape)
        if self.device.type != "meta":
            for rows in stored.blocks():
                yield rows, stored.read(rows)

    def _stored(self, name: str, shape: Sequence[int]) -> "StoredTensor":
        """Where the tensor lies, which counts as taken from now on."""
        stored = next((candidate for candidate in self._candidates(name) if candidate in self._file_of), None)
        if stored is None:
            raise CheckpointError(f"{self.folder} has no tensor {name} in its safetensors files")
        self._unused.discard(stored)
        return StoredTensor.of(self._file_of[stored], stored, shape)

    def check_all_used(self, ignorable: Sequence[str]) -> None:
        """Raises CheckpointError for a tensor that nothing has taken: without it the model would not be what it was
        trained to be. `ignorable` are beginnings of names, with the prefix and without."""
        beginnings = (*ignorable, *(self._prefix + name for name in ignorable))
        for name in sorted(self._unused):
            if not name.startswith(beginnings):
                raise CheckpointError(
                    f"{self._file_of[name]} has the tensor {name}, which this architecture has no place for"
                )

    def _candidates(self, name: str) -> Iterable[str]:
        for known in (name, self._prefix + name):
            yield known
            for modern, legacy in LEGACY_NAMES:
                yield known.replace(modern, legacy)

    def outside_of_model(self) -> Sequence[str]:
        """Names of unused tensors that are no part of the model: those without its prefix if it has been taken from
        below one, else those that begin otherwise than all that has been taken."""
        taken = [name for name in self._file_of if name not in self._unused and not name.endswith(BUFFERS)]
        has_prefix = bool(self._prefix) and any(name.startswith(self._prefix) for name in taken)
        own = (self._prefix,) if has_prefix else tuple({f"{name.partition('.')[0]}." for name in taken})
        return [name for name in self._unused if not name.startswith(own)]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    path: Path
    name: str
    shape: Sequence[int]
    bytes_of_number: int

    @classmethod
    def of(cls, path: Path, name: str, shape: Sequence[int]) -> "StoredTensor":
        """Raises CheckpointError if it is of another shape, or not of floating-point numbers."""
        try:
            with safe_open(path, framework="pt") as file:
                header = file.get_slice(name)
                data_type = header.get_dtype()
                check_header(header.get_shape(), data_type, shape, f"{path}: tensor {name}")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from None
        return cls(path, name, shape, FLOAT_TYPES[data_type])

    def blocks(self) -> Iterator[slice]:
        """Of rows; together they are the tensor."""
        rows, row_bytes = self.shape[0], math.prod(self.shape[1:]) * self.bytes_of_number
        step = max(1, BLOCK_BYTES // max(1, row_bytes))
        return (slice(start, min(start + step, rows)) for start in range(0, rows, step))

    def read(self, rows: slice) -> Tensor:
        """Lies in the mapped file, which stays mapped as long as the tensor lives."""
        try:
            with safe_open(self.path, framework="pt") as file:
                block: Tensor = file.get_slice(self.name)[rows]
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path} cannot be read: {error}") from None
        return block


def check_header(shape: Sequence[int], data_type: str, expected: Sequence[int], tensor: str) -> None:
    if list(shape) != list(expected):
        raise CheckpointError(f"{tensor} has shape {list(shape)}, expected {list(expected)}")
    if data_type not in FLOAT_TYPES:
        raise CheckpointError(f"{tensor} is {data_type}; quantized weights are not supported")


def files_by_tensor(folder: Path) -> dict[str, Path]:
    if (folder / SHARD_INDEX).is_file():
        return files_of_shards(folder)
    if (folder / SINGLE_FILE).is_file():
        return dict.fromkeys(names_in(folder / SINGLE_FILE), folder / SINGLE_FILE)
    for name in PICKLED_FILES:
        if (folder / name).is_file():
            raise CheckpointError(
                f"{folder} has only pickled weights ({name}), which can run code and are not loaded; "
                f"save the model as safetensors"
            )
    raise CheckpointError(f"{folder} has no {SINGLE_FILE}")


def files_of_shards(folder: Path) -> dict[str, Path]:
    shard_of = read_json(folder / SHARD_INDEX).get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        raise CheckpointError(f"{folder / SHARD_INDEX} has no weight_map from tensors to files")
    for shard in set(shard_of.values()):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise CheckpointError(f"{folder / SHARD_INDEX} names {shard}, which is not a file of the folder")
    return {name: folder / shard for name, shard in shard_of.items()}


def names_in(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from None
