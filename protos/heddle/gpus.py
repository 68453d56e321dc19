"""The NVIDIA GPUs that a process may use, found without torch, whose import takes seconds. Called by `heddle serve`,
which spreads engine pods over them, and by an engine pod before it initialises CUDA.

NVML counts the GPUs, because it neither initialises CUDA nor opens a context. It knows nothing of CUDA_VISIBLE_DEVICES,
so that variable is read here as CUDA reads it:
https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
"""

import ctypes
import re
from collections.abc import Mapping
from typing import Any

VARIABLE = "CUDA_VISIBLE_DEVICES"
NVML = "libnvidia-ml.so.1"

DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,4})?")


def check_device(device: str) -> None:
    """For `__post_init__` of settings. Raises ValueError."""
    if not DEVICE.fullmatch(device):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, not {device!r}")


def visible_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs in CUDA's order. Each is named by the value of CUDA_VISIBLE_DEVICES that shows a process only this one.
    A process sees only the first of several MIG devices, but all are listed, because each can be shown alone."""
    count = count_gpus()
    stated = environ.get(VARIABLE)
    if stated is None or not count:
        return tuple(map(str, range(count)))
    named: list[str] = []
    for name in map(str.strip, stated.split(",")):
        if not is_gpu(name, count):
            break  # CUDA ignores the first that is not valid, and all after it
        named.append(name)
    return tuple(named) if len(set(named)) == len(named) else ()


def is_gpu(name: str, count: int) -> bool:
    return name.startswith(("GPU-", "MIG-")) or (name.isdecimal() and int(name) < count)


def count_gpus() -> int:
    """0 without a driver."""
    try:
        nvml: Any = ctypes.CDLL(NVML)
    except OSError:
        return 0
    if nvml.nvmlInit_v2() != 0:
        return 0
    count = ctypes.c_uint(0)
    try:
        return count.value if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0 else 0
    finally:
        nvml.nvmlShutdown()
