"""The tensors in a checkpoint's weight files, safetensors or pickled, and how to read a few of their rows at a time.
Called by `engine_svc.models.weights`.

No tensor stays in memory. Pages of a mapped file count towards the process until the file is unmapped, so a safetensors
file is mapped anew for each read. A pickled file takes long to open, so it stays mapped and its pages are released
after each read. Pickled files are opened with `weights_only`, so that none of their code runs.
"""

import ctypes
import math
import mmap
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.weight_files import find_weight_files

# Bytes of the file per read, rounded to whole rows. Opening the file again takes a fraction of the time to copy these.
BLOCK_BYTES = 8 << 20

# Bytes of a number, by the names that safetensors has for the types.
FLOAT_TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
NUMBER_BYTES = {**FLOAT_TYPES, "F8_E4M3": 1, "U8": 1}
NAME_OF_TYPE = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.uint8: "U8",
}

MADV_DONTNEED = 4  # <sys/mman.h>

ZIP_START = b"PK\x03\x04"
# torch's error message names the code that a pickle asks for like this.
CODE = re.compile(r"GLOBAL (\S+)")


def keep_pages(block: Tensor) -> None:
    """Does nothing: for tensors that are not mapped, or whose pages are released with the block."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    path: Path
    name: str
    shape: Sequence[int]
    data_type: str
    # Reads some rows, or with ... all of the tensor. The file stays mapped as long as the result is kept.
    read: Callable[[slice | EllipsisType], Tensor]
    forget: Callable[[Tensor], None] = keep_pages  # call it with the rows that were read, once they are copied

    def check(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> None:
        """Raises CheckpointError if the tensor has another shape, or is not of this type. Without `dtype`, any type of
        16 bits or more will do."""
        if list(self.shape) != list(shape):
            raise CheckpointError(
                f"{self.path}: tensor {self.name} has shape {list(self.shape)}, expected {list(shape)}"
            )
        if dtype is not None and self.data_type != NAME_OF_TYPE[dtype]:
            raise CheckpointError(
                f"{self.path}: tensor {self.name} is {self.data_type}, expected {NAME_OF_TYPE[dtype]}"
            )
        if dtype is None and self.data_type not in FLOAT_TYPES:
            raise CheckpointError(
                f"{self.path}: tensor {self.name} is {self.data_type}; quantized weights are not supported"
            )

    def blocks(self) -> Iterator[slice]:
        """Slices of rows that together cover the tensor."""
        rows, row_bytes = self.shape[0], math.prod(self.shape[1:]) * NUMBER_BYTES[self.data_type]
        step = max(1, BLOCK_BYTES // max(1, row_bytes))
        return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors by name. Raises CheckpointError for files that are missing, broken, or need code to be read."""
    tensors: dict[str, StoredTensor] = {}
    for path in find_weight_files(folder):
        tensors |= safe_tensors(path) if path.suffix == ".safetensors" else pickled_tensors(path)
    return tensors


def safe_tensors(path: Path) -> dict[str, StoredTensor]:
    def reader(name: str) -> Callable[[slice | EllipsisType], Tensor]:
        def read(rows: slice | EllipsisType) -> Tensor:
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
    """Reads a file of torch.save. The format before torch 1.6 cannot be mapped: such a file is loaded as a whole."""
    with path.open("rb") as file:
        is_mapped = file.read(len(ZIP_START)) == ZIP_START
    try:
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_mapped)
    except Exception as error:  # the errors of broken files have no common base
        raise CheckpointError(f"{path} {reason_of(error)}") from error
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise CheckpointError(f"{path} does not hold a dictionary of tensors; save the model as safetensors")
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
        return f"needs code to be read ({code[1]}), and code of checkpoints is not run; save the model as safetensors"
    return "cannot be read: " + (" ".join(str(error).split()) or type(error).__name__)


def give_back_pages(block: Tensor) -> None:
    """Releases the pages of a mapped file. They are read from the file again if somebody still uses them."""
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None:
        return
    numbers = 1 + sum((size - 1) * stride for size, stride in zip(block.shape, block.stride(), strict=True))
    before = block.data_ptr() % mmap.PAGESIZE
    size = before + numbers * block.element_size()
    madvise(ctypes.c_void_p(block.data_ptr() - before), ctypes.c_size_t(size), MADV_DONTNEED)
