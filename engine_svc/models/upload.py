"""The one copy from the host to the device that a forward pass makes. `PackedTokens` builds it."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Integers = npt.NDArray[np.integer] | npt.NDArray[np.bool_]

# Each column starts at a multiple of 16 bytes: Triton compiles a kernel anew for pointers that do not.
ALIGNED_NUMBERS = 4
GAPS = [np.zeros(size, np.int32) for size in range(ALIGNED_NUMBERS)]


class Upload:
    """Named columns of integers, laid end to end in one int32 buffer."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sizes: list[int] = []  # of each column, then of the gap behind it
        self._parts: list[Integers] = []

    def add(self, name: str, *parts: Integers) -> None:
        """The column is its parts, one behind the other."""
        size = sum(map(len, parts))
        gap = -size % ALIGNED_NUMBERS
        self._names.append(name)
        self._sizes += (size, gap)
        self._parts += (*parts, GAPS[gap])

    def send(self, device: torch.device) -> Mapping[str, Tensor]:
        """The columns on the device, int32."""
        columns = torch.split(copy_to_device(self._parts, device), self._sizes)
        return dict(zip(self._names, columns[::2], strict=True))


def copy_to_device(parts: Sequence[Integers], device: torch.device) -> Tensor:
    """The parts end to end, int32. Does not wait for a GPU: from pinned memory a copy is queued like a kernel, and
    PyTorch does not reuse the memory before it is done."""
    host = torch.empty(sum(map(len, parts)), dtype=torch.int32, pin_memory=device.type == "cuda")
    np.concatenate(parts, out=host.numpy())
    return host.to(device, non_blocking=True)
