"""What a process may use of the machine it runs on: CPU cores, NVIDIA GPUs, and freed memory that it keeps.

Called by `heddle serve`, which shares cores and GPUs out, by engine pods before they initialise CUDA, and by tokenizer
pods. GPUs are found without torch, whose import takes seconds: NVML counts them, because it neither initialises CUDA
nor opens a context. It ignores CUDA_VISIBLE_DEVICES, so that variable is read here as CUDA reads it:
https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
"""

import ctypes
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CGROUPS = Path("/sys/fs/cgroup")

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
NVML = "libnvidia-ml.so.1"

DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,4})?")

# <malloc.h>
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

# The most that older versions of glibc accept.
MMAP_THRESHOLD_SURE = 32 << 20


def usable_cores(cgroups: Path = CGROUPS) -> int:
    """Those that it may run on, or fewer where its container has a limit of CPU time."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = core_limit(cgroups)
    return allowed if limit is None else min(allowed, max(1, math.ceil(limit)))


def core_limit(cgroups: Path) -> float | None:
    """In cores: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), or the first version's two files."""
    try:
        quota, period = (cgroups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max" is no limit
        return None


def check_device(device: str) -> None:
    """For `__post_init__` of settings. Raises ValueError."""
    if not DEVICE.fullmatch(device):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, not {device!r}")


def visible_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs in CUDA's order. Each is named by the value of CUDA_VISIBLE_DEVICES that shows a process only this one.
    A process sees only the first of several MIG devices, but all are listed, because each can be shown alone."""
    count = count_gpus()
    stated = environ.get(GPUS_VARIABLE)
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


def keep_freed_memory(bytes_max: int) -> None:
    """Blocks up to this size, and this much in all, go back to the system only when the process needs them no more.
    By itself glibc hands a large block back as soon as it is free, and the kernel clears the pages of the next one.
    For the whole process; nothing happens without glibc."""
    mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    if not mallopt(M_MMAP_THRESHOLD, bytes_max):
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_SURE)
    mallopt(M_TRIM_THRESHOLD, bytes_max)
