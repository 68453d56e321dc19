"""Loads the weights of a checkpoint, a block of rows at a time, in the data type and on the device of the model.

Peak memory is the model plus one block and one weight being packed per loading thread, instead of twice the model. The
embedding table of a large vocabulary, which may be most of a model, is read in blocks too. Architectures, heads and
layers load their tensors from here.
"""

import copy
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from engine_svc.models.loading_threads import load_on_all_cores
from engine_svc.models.quantization import Quantization
from engine_svc.models.stored_tensors import StoredTensor, open_stored_tensors
from heddle.checkpoint.json_files import CheckpointError

T = TypeVar("T")
Part = TypeVar("Part")

# TensorFlow's names of layer norms, found in the oldest checkpoints.
LEGACY_NAMES = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))

# Buffers that old versions of transformers saved. Their content follows from the config.
BUFFERS = ("position_ids", "token_type_ids", "rotary_emb.inv_freq", "masked_bias")

# Scales that ModelOpt stores and the engine does not use: it measures those of activations for each token, and has no
# KV cache.
UNUSED_SCALES = (".input_scale", ".k_scale", ".v_scale")

# Endings of the packed weights of GPTQ, AWQ and compressed-tensors.
FOREIGN_WEIGHTS = (".qweight", ".weight_packed")


@dataclass(frozen=True, slots=True)
class LoraDelta:
    """What a LoRA adapter adds to a weight: lora_b @ lora_a."""

    lora_b: Tensor  # [outputs, rank], for a table [entries, rank]; includes the adapter's scale
    lora_a: Tensor  # [rank, inputs], for a table [rank, embedding size]


# One for each adapter, None for the adapter that the weights include already. Empty for a linear without adapters.
LoraDeltas = Sequence[LoraDelta | None]

# Called with the names of a linear's parts and the linear. Returns the linear to use instead.
Observe = Callable[[Sequence[str], Callable[[Any], Tensor]], Callable[[Any], Tensor]]


class Weights:
    """The tensors of a checkpoint by name. Names are those of the bare model; a checkpoint saved from a model with a
    head has them below `prefix`."""

    quantization: Quantization | None = None  # of the linears that `load_linear` builds in the model's type
    observe: Observe | None = None  # wraps each linear, so that calibration sees its inputs

    def __init__(self, folder: Path, *, dtype: torch.dtype, device: torch.device, prefix: str = "") -> None:
        self.folder = folder
        self.dtype = dtype
        self.device = device
        self.prefix = prefix
        self._tensors = open_stored_tensors(folder)
        self._buffers = threading.local()
        self._unused = {name for name in self._tensors if not name.endswith((*BUFFERS, *UNUSED_SCALES))}

    def with_quantization(self, quantization: Quantization | None, observe: Observe | None = None) -> Self:
        """Returns a copy whose linears are quantized and observed. Both copies record used tensors in the same set."""
        weights = copy.copy(self)
        weights.quantization, weights.observe = quantization, observe
        return weights

    def has(self, name: str) -> bool:
        return any(candidate in self._tensors for candidate in self._candidates(name))

    def first_present(self, *names: str) -> str:
        """The first of `names` that the files have, for tied tensors, of which a file may store only one. The first of
        `names` if they have none."""
        return next((name for name in names if self.has(name)), names[0])

    def shape(self, name: str) -> Sequence[int]:
        return self._find(name).shape

    def data_type(self, name: str) -> str:
        """Returns the stored type, as safetensors names it."""
        return self._find(name).data_type

    def load(self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Returns a copy of the tensor, in the model's type or in `dtype`. On the device "meta" only checks the shape.
        Do not compute with meta tensors: PyTorch would import its compiler, which takes longer than the rest of a pod's
        start. Raises CheckpointError if the tensor is missing or has another shape."""
        return self.load_joined([(name, shape)], dtype)

    def load_joined(
        self,
        parts: Sequence[tuple[str, Sequence[int]]],
        dtype: torch.dtype | None = None,
        *,
        is_temporary: bool = False,
    ) -> Tensor:
        """Like `load`, for several tensors with these names and shapes, concatenated along dimension 0. With
        `is_temporary`, the next such call in this thread overwrites the result; reused memory needs no new pages."""
        rows = [shape[0] for _, shape in parts]
        whole = [sum(rows), *parts[0][1][1:]]
        dtype = dtype or self.dtype
        loaded = self._borrow(whole, dtype) if is_temporary else torch.empty(whole, dtype=dtype, device=self.device)
        for (name, shape), part in zip(parts, torch.split(loaded, rows), strict=True):
            for place, block in self.read_blocks(name, shape):
                part[place] = block
        return loaded

    def load_each(self, load: Callable[[T], Part], items: Iterable[T]) -> list[Part]:
        """Returns what `load` returns for each item, such as a layer. Runs several at once on a CPU."""
        if self.device.type != "cpu" or self.observe is not None:
            return [load(item) for item in items]
        return load_on_all_cores(load, items)

    def load_scales(self, name: str, rows: int) -> Tensor:
        """float32 [rows, 1]. One number for the whole tensor is repeated for each row."""
        stored = self._find(name)
        shapes: Sequence[Sequence[int]] = ([rows], [rows, 1], [1], [])
        stored.check(next((shape for shape in shapes if shape == list(stored.shape)), [rows]))
        loaded = torch.empty(rows, 1, dtype=torch.float32, device=self.device)
        return loaded if loaded.is_meta else loaded.copy_(stored.read(...).reshape(-1, 1))

    def load_rows(self, name: str, shape: Sequence[int], rows: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Like `load`, but only some rows. No others are read."""
        stored = self._find_checked(name, shape)
        loaded = torch.empty(len(rows), *shape[1:], dtype=dtype, device=self.device)
        if not loaded.is_meta:
            for index, row in enumerate(rows):
                loaded[index] = stored.read(slice(row, row + 1))[0]
        return loaded

    def load_lora(self, parts: Sequence[tuple[str, int]], inputs: int) -> LoraDeltas:
        """The adapters' changes of a linear, or embedding table, that is made of these `parts`: names and numbers of
        outputs. Empty without adapters. Raises CheckpointError."""
        return ()

    def read_blocks(
        self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """All rows of the tensor in blocks, in the type of the file, which must be `dtype` if that is given. No rows on
        the device "meta". A block lies in the mapped file: copy it before you ask for the next one."""
        stored = self._find_checked(name, shape, dtype)
        if self.device.type != "meta":
            for rows in stored.blocks():
                block = stored.read(rows)
                yield rows, block
                stored.release(block)

    def _borrow(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        buffer: Tensor | None = getattr(self._buffers, "bytes", None)
        if buffer is None or len(buffer) < size:
            self._buffers.bytes = buffer = torch.empty(size, dtype=torch.uint8, device=self.device)
        return buffer[:size].view(dtype).view(shape)

    def unused(self, expected: Sequence[str]) -> list[str]:
        """Names of the tensors that the model has not loaded, except those that are `expected` to be unused. `expected`
        are beginnings of names, with or without the prefix."""
        beginnings = (*expected, *(self.prefix + name for name in expected))
        return sorted(name for name in self._unused if not name.startswith(beginnings))

    def _find_checked(self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None) -> StoredTensor:
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

    def _candidates(self, name: str) -> Iterable[str]:
        for known in (name, self.prefix + name):
            yield known
            for modern, legacy in LEGACY_NAMES:
                yield known.replace(modern, legacy)
