"""Says where the Triton kernels of this package run. Callers ask before they import a kernel, because Triton is not
installed everywhere."""

import importlib.util
from functools import cache

import torch

# Triton compiles for Turing and later.
CAPABILITY_MIN = (7, 5)


@cache
def runs_kernels(device: torch.device) -> bool:
    """False on a CPU, where Triton's interpreter is for tests only."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= CAPABILITY_MIN
