"""The tensors in a checkpoint's weight files, safetensors or pickled, of which a few rows are read at a time.
`engine_svc.models.weights` reads them.

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

from heddle.checkpoint.damaged_files import explain, explain_safetensors
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.weight_files import find_weight_files, unwrap_names

# Bytes of the file per read, rounded to whole rows. To open the file again takes a fraction of the time of this copy.
BLOCK_BYTES = 8 << 20

# Bytes of a number, by safetensors' names of the types.
FLOAT_TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
TYPE_BYTES = {**FLOAT_TYPES, "F8_E4M3": 1, "U8": 1, "I8": 1}
TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

MADV_DONTNEED = 4  # <sys/mman.h>

ZIP_START = b"PK\x03\x04"
# How torch's error message names the code that a pickle asks for.
CODE = re.compile(r"GLOBAL (\S+)")


def keep_pages(block: Tensor) -> None:
    """Does nothing, for tensors that are not mapped, or whose pages are released with the block."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    path: Path
    name: str
    shape: Sequence[int]
    data_type: str
    # Reads some rows, or all of the tensor if the argument is `...`. The file stays mapped as long as the result is
    # kept.
    read: Callable[[slice | EllipsisType], Tensor]
    release: Callable[[Tensor], None] = keep_pages  # call it with the rows that were read, after you have copied them

    def check(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> None:
        """Raises CheckpointError if the tensor has another shape, or is not of this type. Without `dtype`, any type of
        16 bits or more is accepted."""
        if list(self.shape) != list(shape):
            raise CheckpointError(
                f"{self.path}: tensor {self.name} has shape {list(self.shape)}, expected {list(shape)}"
            )
        if dtype is not None and self.data_type != TYPE_NAMES[dtype]:
            raise CheckpointError(f"{self.path}: tensor {self.name} is {self.data_type}, expected {TYPE_NAMES[dtype]}")
        if dtype is None and self.data_type not in FLOAT_TYPES:
            raise CheckpointError(
                f"{self.path}: tensor {self.name} is {self.data_type}; quantized weights are not supported"
            )

    def blocks(self) -> Iterator[slice]:
        """Slices of rows that together cover the tensor."""
        rows, row_bytes = self.shape[0], math.prod(self.shape[1:]) * TYPE_BYTES[self.data_type]
        step = max(1, BLOCK_BYTES // max(1, row_bytes))
        return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def open_stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Returns tensors by name, without the prefixes of torch.compile and DataParallel. Raises CheckpointError if files
    are missing or damaged, or contain pickled code."""
    tensors: dict[str, StoredTensor] = {}
    for path in find_weight_files(folder):
        tensors |= open_weight_file(path)
    return unwrap_names(tensors)


def open_weight_file(path: Path) -> dict[str, StoredTensor]:
    return open_safetensors(path) if path.suffix == ".safetensors" else open_pickle(path)


def open_safetensors(path: Path) -> dict[str, StoredTensor]:
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
        reason = explain_safetensors(path) or f"is not a safetensors file: {error}"
        raise CheckpointError(f"{path} {reason}") from None


def open_pickle(path: Path) -> dict[str, StoredTensor]:
    """Reads a file of torch.save. The format before torch 1.6 cannot be mapped: such a file is loaded as a whole."""
    with path.open("rb") as file:
        is_mapped = file.read(len(ZIP_START)) == ZIP_START
    try:
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_mapped)
    except Exception as error:  # the errors of broken files have no common base
        raise CheckpointError(f"{path} {explain(path) or describe_error(error)}") from error
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise CheckpointError(f"{path} does not hold a dictionary of tensors; save the model as safetensors")
    release = release_pages if is_mapped else keep_pages
    # Old files hold parameters. Detached, they do not make the model's tensors require gradients.
    tensors = {name: tensor.detach() for name, tensor in content.items()}
    return {
        name: StoredTensor(path, name, list(tensor.shape), type_name(tensor.dtype), tensor.__getitem__, release)
        for name, tensor in tensors.items()
    }


def type_name(data_type: torch.dtype) -> str:
    return TYPE_NAMES.get(data_type, str(data_type).removeprefix("torch."))


def describe_error(error: Exception) -> str:
    code = CODE.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if code:
        return f"needs code to be read ({code[1]}), and code of checkpoints is not run; save the model as safetensors"
    if isinstance(error, pickle.UnpicklingError):  # its own message is a page about weights_only
        return "cannot be read: it is damaged, or not a file of torch.save"
    return "cannot be read: " + (" ".join(str(error).split()) or type(error).__name__)


def release_pages(block: Tensor) -> None:
    """Releases the pages of a mapped file. They are read again if something still uses them."""
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None:
        return
    numbers = 1 + sum((size - 1) * stride for size, stride in zip(block.shape, block.stride(), strict=True))
    before = block.data_ptr() % mmap.PAGESIZE
    size = before + numbers * block.element_size()
    madvise(ctypes.c_void_p(block.data_ptr() - before), ctypes.c_size_t(size), MADV_DONTNEED)
