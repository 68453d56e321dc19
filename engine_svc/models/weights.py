"""Reads the weights of a checkpoint, a block of rows at a time, in the data type and on the device of the model.

So the peak of memory is the model and one block, not the model twice. It matters for the embedding table of a large
vocabulary, too, which may be most of a model. Called by the code that builds a model: architectures, heads, layers.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from engine_svc.models.low_rank import Changes
from engine_svc.models.quantization import Quantization
from engine_svc.models.stored_tensors import StoredTensor, stored_tensors
from heddle.checkpoint.json_files import CheckpointError

# Names of TensorFlow's layer norms, found in the oldest checkpoints.
LEGACY_NAMES = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))

# Buffers that old versions of transformers saved; what they hold follows from the config.
BUFFERS = ("position_ids", "token_type_ids", "rotary_emb.inv_freq", "masked_bias")

# Scales that ModelOpt stores: of activations, which here are measured for each token, and of a KV cache, of which there
# is none.
UNUSED_SCALES = (".input_scale", ".k_scale", ".v_scale")

# Endings of the packed weights of GPTQ, AWQ and compressed-tensors.
FOREIGN_WEIGHTS = (".qweight", ".weight_packed")


class Weights:
    """The tensors of a checkpoint by name. Names are those of the bare model; a checkpoint saved from a model with a
    head has them below `prefix`."""

    quantization: Quantization | None = None  # of the linears that `load_linear` builds in the model's type

    def __init__(self, folder: Path, *, dtype: torch.dtype, device: torch.device, prefix: str = "") -> None:
        self.folder = folder
        self.dtype = dtype
        self.device = device
        self._prefix = prefix
        self._tensors = stored_tensors(folder)
        self._unused = {name for name in self._tensors if not name.endswith((*BUFFERS, *UNUSED_SCALES))}

    def quantized(self, quantization: Quantization | None) -> Self:
        """A copy that reads linears as quantized. Both copies note the tensors that are used in one set."""
        weights = copy.copy(self)
        weights.quantization = quantization
        return weights

    def has(self, name: str) -> bool:
        return any(candidate in self._tensors for candidate in self._candidates(name))

    def first_of(self, *names: str) -> str:
        """The first of `names` that the files have, for tied tensors, of which a file may store only one. The first of
        `names` if they have none."""
        return next((name for name in names if self.has(name)), names[0])

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """A copy of the tensor, in the model's type or in `dtype`; on the device "meta" its shape alone is read. Raises
        CheckpointError if it is missing or of another shape."""
        taken = torch.empty(*shape, dtype=dtype or self.dtype, device=self.device)
        for rows, block in self.row_blocks(name, shape):
            taken[rows] = block
        return taken

    def take_scales(self, name: str, rows: int) -> Tensor:
        """float32 [rows, 1]. One number for the whole tensor is repeated for each row."""
        stored = self._find(name)
        shapes: Sequence[Sequence[int]] = ([rows], [rows, 1], [1], [])
        stored.check(next((shape for shape in shapes if shape == list(stored.shape)), [rows]))
        taken = torch.empty(rows, 1, dtype=torch.float32, device=self.device)
        return taken if taken.is_meta else taken.copy_(stored.read(...).reshape(-1, 1))

    def take_rows(self, name: str, shape: Sequence[int], rows: Sequence[int], dtype: torch.dtype) -> Tensor:
        """As `take`, some rows of it: no others are read."""
        stored = self._stored(name, shape)
        taken = torch.empty(len(rows), *shape[1:], dtype=dtype, device=self.device)
        if not taken.is_meta:
            for index, row in enumerate(rows):
                taken[index] = stored.read(slice(row, row + 1))[0]
        return taken

    def changes_of(self, parts: Sequence[tuple[str, int]], inputs: int) -> Changes:
        """The adapters' changes of a linear, or table, that is made of these `parts`: names and numbers of outputs. ()
        without adapters. Raises CheckpointError."""
        return ()

    def row_blocks(
        self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """All rows of the tensor in blocks, in the type of the file, which must be `dtype` if that is given. No rows on
        the device "meta". A block lies in the mapped file: copy it before you ask for the next one."""
        stored = self._stored(name, shape, dtype)
        if self.device.type != "meta":
            for rows in stored.blocks():
                block = stored.read(rows)
                yield rows, block
                stored.forget(block)

    def _stored(self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None) -> StoredTensor:
        stored = self._find(name)
        stored.check(shape, dtype)
        return stored

    def _find(self, name: str) -> StoredTensor:
        """Counts the tensor as used."""
        stored = next((candidate for candidate in self._candidates(name) if candidate in self._tensors), None)
        if stored is None:
            module = name.removesuffix(".weight")
            if any(self.has(f"{module}{ending}") for ending in FOREIGN_WEIGHTS):
                raise CheckpointError(f"{self.folder}: the weights of {module} are quantized in an unsupported way")
            raise CheckpointError(f"{self.folder} has no tensor {name} in its weight files")
        self._unused.discard(stored)
        return self._tensors[stored]

    def unused(self, expected: Sequence[str]) -> list[str]:
        """Names of the tensors that the model has not taken, without those that are `expected` to be unused. `expected`
        are beginnings of names, which are compared with the prefix and without."""
        beginnings = (*expected, *(self._prefix + name for name in expected))
        return sorted(name for name in self._unused if not name.startswith(beginnings))

    def _candidates(self, name: str) -> Iterable[str]:
        for known in (name, self._prefix + name):
            yield known
            for modern, legacy in LEGACY_NAMES:
                yield known.replace(modern, legacy)
