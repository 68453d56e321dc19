"""The tensors of a checkpoint's weight files, safetensors or pickled: where each lies, and how a few of its rows are
read. `Weights` takes them from here.

Nothing is kept in memory. Pages of a mapped file that were read stay in the process for as long as the mapping does, so
safetensors are mapped anew for each read. A pickled file takes long to open: it stays mapped and gives its pages back.
Pickled files are opened with `weights_only`: none of their code ever runs.
"""

import ctypes
import math
import mmap
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from heddle.checkpoint_files import CheckpointError
from heddle.weight_files import weight_files

# In the file; a row is never divided. Opening the file once more takes a fraction of the time that copying these does.
BLOCK_BYTES = 8 << 20

# Bytes of a number, by the names that safetensors has for the types.
FLOAT_TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
NAME_OF_TYPE = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}

MADV_DONTNEED = 4  # <sys/mman.h>

ZIP_START = b"PK\x03\x04"
# How torch names what a pickle asks for beyond tensors.
CODE = re.compile(r"GLOBAL (\S+)")


def keep_pages(block: Tensor) -> None:
    """There are none, or they go with the block."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    path: Path
    name: str
    shape: Sequence[int]
    data_type: str
    read: Callable[[slice], Tensor]  # some rows; whoever keeps the result keeps the file mapped
    forget: Callable[[Tensor], None] = keep_pages  # to be called with what was read, once it has been copied

    def check(self, shape: Sequence[int]) -> None:
        """Raises CheckpointError if it is of another shape, or not of floating-point numbers."""
        if list(self.shape) != list(shape):
            raise CheckpointError(
                f"{self.path}: tensor {self.name} has shape {list(self.shape)}, expected {list(shape)}"
            )
        if self.data_type not in FLOAT_TYPES:
            raise CheckpointError(
                f"{self.path}: tensor {self.name} is {self.data_type}; quantized weights are not supported"
            )

    def blocks(self) -> Iterator[slice]:
        """Of rows; together they are the tensor."""
        rows, row_bytes = self.shape[0], math.prod(self.shape[1:]) * FLOAT_TYPES[self.data_type]
        step = max(1, BLOCK_BYTES // max(1, row_bytes))
        return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """By name. Raises CheckpointError for files that are missing, broken, or that need code to be read."""
    tensors: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        tensors |= safe_tensors(path) if path.suffix == ".safetensors" else pickled_tensors(path)
    return tensors


def safe_tensors(path: Path) -> dict[str, StoredTensor]:
    def reader(name: str) -> Callable[[slice], Tensor]:
        def read(rows: slice) -> Tensor:
            try:
                with safe_open(path, framework="pt") as file:
                    block: Tensor = file.get_slice(name)[rows]
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} cannot be read: {error}") from None
            return block

        return read

    try:
        with safe_open(path, framework="pt") as file:
            headers = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            return {
                name: StoredTensor(path, name, header.get_shape(), header.get_dtype(), reader(name))
                for name, header in headers.items()
            }
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from None


def pickled_tensors(path: Path) -> dict[str, StoredTensor]:
    """Of torch.save. Its format before torch 1.6 cannot be mapped: such a file is in memory as a whole."""
    with path.open("rb") as file:
        is_mapped = file.read(len(ZIP_START)) == ZIP_START
    try:
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_mapped)
    except Exception as error:  # a broken file has many errors, which have no common base
        raise CheckpointError(f"{path} {reason_of(error)}") from error
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise CheckpointError(f"{path} does not hold tensors by name")
    forget = give_back_pages if is_mapped else keep_pages
    return {
        name: StoredTensor(path, name, list(tensor.shape), name_of(tensor.dtype), tensor.__getitem__, forget)
        for name, tensor in content.items()
    }


def name_of(data_type: torch.dtype) -> str:
    return NAME_OF_TYPE.get(data_type, str(data_type).removeprefix("torch."))


def reason_of(error: Exception) -> str:
    code = CODE.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if code:
        return f"needs the code {code[1]} to be read, which is never run; save the model as safetensors"
    return "cannot be read: " + (" ".join(str(error).split()) or type(error).__name__)


def give_back_pages(block: Tensor) -> None:
    """Of a mapped file. Should anyone still read them, the system reads them from the file once more."""
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None:
        return
    numbers = 1 + sum((size - 1) * stride for size, stride in zip(block.shape, block.stride(), strict=True))
    before = block.data_ptr() % mmap.PAGESIZE
    size = before + numbers * block.element_size()
    madvise(ctypes.c_void_p(block.data_ptr() - before), ctypes.c_size_t(size), MADV_DONTNEED)
