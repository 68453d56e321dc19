"""Reads the safetensors of a checkpoint, one tensor at a time, in the data type and on the device of the model.

The file is mapped anew for each tensor: pages that were read stay in the process as long as a mapping does, and so the
peak is the model and its largest tensor, not the model twice. Called by what builds a model: the architectures, and the
parts that know how to load themselves.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from heddle.checkpoint_files import CheckpointError, read_json

SINGLE_FILE = "model.safetensors"
SHARD_INDEX = "model.safetensors.index.json"
PICKLED_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")

# Names of TensorFlow's layer norms, found in the oldest checkpoints.
LEGACY_NAMES = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))


# By the names that safetensors has for them.
FLOAT_TYPES = frozenset({"F64", "F32", "F16", "BF16"})

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
        return self._read(name, shape, dtype)

    def take_rows(self, name: str, shape: Sequence[int], rows: Sequence[int], dtype: torch.dtype) -> Tensor:
        """As `take`, some rows of it: no others are read."""
        return self._read(name, shape, dtype, rows)

    def _read(
        self, name: str, shape: Sequence[int], dtype: torch.dtype | None, rows: Sequence[int] | None = None
    ) -> Tensor:
        stored = next((candidate for candidate in self._candidates(name) if candidate in self._file_of), None)
        if stored is None:
            raise CheckpointError(f"{self.folder} has no tensor {name} in its safetensors files")
        path = self._file_of[stored]
        self._unused.discard(stored)
        try:
            with safe_open(path, framework="pt") as file:
                header = file.get_slice(stored)
                check_header(header.get_shape(), header.get_dtype(), shape, f"{path}: tensor {stored}")
                if self.device.type == "meta":
                    length = shape[0] if rows is None else len(rows)
                    return torch.empty(length, *shape[1:], dtype=dtype or self.dtype, device=self.device)
                tensor: Tensor = file.get_tensor(stored) if rows is None else rows_of(header, rows)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from None
        return tensor.to(self.device, dtype or self.dtype, copy=True)

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


def rows_of(header: Any, rows: Sequence[int]) -> Tensor:
    return torch.cat([header[row : row + 1] for row in rows])


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
