"""What the engine offers for a GPU beyond its plain path, found by looking: fp8, and kernels of its own. A check of
what is not there says "not built", and a check of what is there needs no change here.

fp8 is there when TorchBackend takes `quantization`. Kernels are there when the module KERNELS_MODULE has a mapping
`KERNELS` from names to objects that are a `Kernel`.
"""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from engine_svc.backends.torch_backend import TorchBackend

KERNELS_MODULE = "engine_svc.models.kernels"
NOT_BUILT = "not built"


class Kernel(Protocol):
    @property
    def fused(self) -> Callable[..., Tensor]: ...

    @property
    def plain(self) -> Callable[..., Tensor]:
        """The same computation with PyTorch's own operations."""
        ...

    def example(self, device: torch.device, dtype: torch.dtype) -> Sequence[Any]:
        """Random arguments for both, of realistic sizes; small ones on a CPU."""
        ...


def has_fp8() -> bool:
    return "quantization" in inspect.signature(TorchBackend).parameters


def kernels() -> Mapping[str, Kernel]:
    if importlib.util.find_spec(KERNELS_MODULE) is None:
        return {}
    found: Mapping[str, Kernel] = importlib.import_module(KERNELS_MODULE).KERNELS
    return found
