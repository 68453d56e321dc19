"""A GPU that computes no numbers, for machines without one: tensors of PyTorch's FakeTensorMode on "cuda". They have
shapes and types only, so an operation that reads a number back, and so waits for the device, is an error.

Copies between host and device are recorded. Triton kernels do not run, because the card claims to be older than they
need.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import EllipsisType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from engine_svc.models import packed_tokens, weights
from engine_svc.models.stored_tensors import StoredTensor, open_stored_tensors

CUDA = torch.device("cuda:0")
CAPABILITY = (7, 0)  # below what Triton and flash attention need

# They read numbers back; on a PyTorch without CUDA they fail in ways that say nothing.
WAITING = (
    *(Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.nonzero, Tensor.__bool__, Tensor.__int__, Tensor.__float__),
    *(Tensor.__index__, Tensor.__iter__, torch.nonzero, torch.argwhere),
)


# Python's methods ask for the real device before they ask the fake tensors; the operations below them do not.
WITHOUT_DEVICE = {Tensor.copy_: torch.ops.aten.copy_, Tensor.contiguous: torch.ops.aten.contiguous}


class WaitError(AssertionError):
    pass


@dataclasses.dataclass
class FakeGPU:
    mode: FakeTensorMode
    uploads: list[str] = dataclasses.field(default_factory=list)
    downloads: list[str] = dataclasses.field(default_factory=list)


class WithoutDevice(TorchFunctionMode):
    """Does by other operations what Python's methods would ask the real device for."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if args and isinstance(args[0], Tensor) and args[0].is_cuda:
            if func in WAITING:
                raise WaitError(f"{func.__name__} waits for the device")
            if func is Tensor.__getitem__:
                return indexed(args[0], args[1])
            if func is Tensor.__setitem__:
                target, value = indexed(args[0], args[1]), args[2]
                return torch.ops.aten.copy_(target, value) if isinstance(value, Tensor) else target.fill_(value)
            func = WITHOUT_DEVICE.get(func, func)
        return func(*args, **(kwargs or {}))


def indexed(tensor: Tensor, index: Any) -> Tensor:
    """`tensor[index]` for integers, slices, None, Ellipsis and at most one tensor of integers."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(part is Ellipsis for part in parts):
        place = next(place for place, part in enumerate(parts) if part is Ellipsis)
        left_out = tensor.ndim - sum(part is not None for part in parts) + 1
        parts[place : place + 1] = [slice(None)] * left_out
    dimension = 0
    for part in parts:
        if part is None:
            tensor = tensor.unsqueeze(dimension)
        elif isinstance(part, slice):
            tensor = torch.ops.aten.slice(tensor, dimension, part.start, part.stop, part.step or 1)
        elif isinstance(part, Tensor) and part.ndim:
            if part.dtype in (torch.bool, torch.uint8):
                raise WaitError("indexing by a mask waits for the device")
            tensor = torch.ops.aten.index(tensor, [None] * dimension + [part])
        else:
            tensor = tensor.select(dimension, part)
            continue
        dimension += 1
    return tensor


class Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, gpu: FakeGPU) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        source = args[1] if func is torch.ops.aten.copy_.default else args[0] if args else None
        if isinstance(source, Tensor) and isinstance(result, Tensor) and source.device != result.device:
            copies = self._gpu.uploads if result.is_cuda else self._gpu.downloads
            copies.append(f"{func} of {list(source.shape)}")
        return result


@contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGPU]:
    """Models that are loaded inside the block, with `CUDA` as their device, are on the fake GPU."""
    gpu = FakeGPU(FakeTensorMode(allow_non_fake_inputs=True))

    def record_upload(parts: Sequence[packed_tokens.Integers], device: torch.device) -> Tensor:
        size = sum(map(len, parts))
        gpu.uploads.append(f"the buffer of {size} numbers")
        return torch.empty(size, dtype=torch.int32, device=device)

    with monkeypatch.context() as patch:
        patch.setattr(packed_tokens, "copy_to_device", record_upload)
        patch.setattr(weights, "open_stored_tensors", unread_tensors)
        patch.setattr(torch.cuda, "get_device_capability", lambda device=None: CAPABILITY)
        with gpu.mode, Copies(gpu), WithoutDevice(), torch.inference_mode():
            yield gpu


def unread_tensors(folder: Path) -> dict[str, StoredTensor]:
    return {
        name: dataclasses.replace(stored, read=unread(stored)) for name, stored in open_stored_tensors(folder).items()
    }


def unread(stored: StoredTensor) -> Callable[[slice | EllipsisType], Tensor]:
    def read(rows: slice | EllipsisType) -> Tensor:
        if rows is ...:
            return torch.empty(*stored.shape)
        return torch.empty(len(range(*rows.indices(stored.shape[0]))), *stored.shape[1:])

    return read
