"""The CPU cores, GPUs and memory that a process may use, and how much freed memory it keeps.

Called by `heddle serve`, which divides cores and GPUs between engines, and by the services. GPUs are counted with NVML,
because importing torch takes seconds, and because NVML neither initializes CUDA nor opens a context. NVML ignores
CUDA_VISIBLE_DEVICES, so that variable is parsed here, as CUDA does:
https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
"""

import asyncio
import ctypes
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CGROUPS = Path("/sys/fs/cgroup")

# Without a limit, cgroup v1 has the largest integer, rounded to pages.
UNLIMITED_BYTES = 1 << 62

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
NVML = "libnvidia-ml.so.1"

DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,4})?")

# <malloc.h>
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

# If more than FREE_BYTES_MAX has been free for FREE_S, memory is returned to the system, except for FREE_BYTES_KEPT.
FREE_BYTES_MAX = 128 << 20
FREE_BYTES_KEPT = 16 << 20
FREE_S = 10.0

# The maximum in older versions of glibc.
OLD_MMAP_THRESHOLD_MAX = 32 << 20


def usable_cores(cgroups: Path = CGROUPS) -> int:
    """Returns the number of cores that the process may run on, or fewer if its container has a CPU limit."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = core_limit(cgroups)
    return allowed if limit is None else min(allowed, max(1, math.ceil(limit)))


def core_limit(cgroups: Path) -> float | None:
    """Reads cpu.max of cgroup v2 (https://docs.kernel.org/admin-guide/cgroup-v2.html), or the two files of v1."""
    try:
        quota, period = (cgroups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max" means no limit
        return None


def memory_limit(cgroups: Path = CGROUPS) -> int | None:
    """Returns the bytes that the process's container may use; None without a limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = (cgroups / name).read_text().strip()
        except OSError:
            continue
        return int(limit) if limit.isdecimal() and int(limit) < UNLIMITED_BYTES else None
    return None


def check_device(device: str) -> None:
    """Raises ValueError. Called by `__post_init__` of settings."""
    if not DEVICE.fullmatch(device):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, not {device!r}")


def visible_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Returns a name for each GPU, in CUDA's order: the value of CUDA_VISIBLE_DEVICES that makes only this one visible.
    A process sees only the first of several MIG devices. All are returned, because each can be made visible alone."""
    count = count_gpus()
    stated = environ.get(GPUS_VARIABLE)
    if stated is None or not count:
        return tuple(map(str, range(count)))
    named: list[str] = []
    for name in map(str.strip, stated.split(",")):
        if not is_gpu(name, count):
            break  # CUDA ignores the first invalid name and all names after it
        named.append(name)
    return tuple(named) if len(set(named)) == len(named) else ()


def is_gpu(name: str, count: int) -> bool:
    return name.startswith(("GPU-", "MIG-")) or (name.isdecimal() and int(name) < count)


def count_gpus() -> int:
    """Returns 0 without a driver."""
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
    """Makes the process keep freed memory for reuse: blocks up to this size, and this much in total. By default, glibc
    returns a large block to the system when it is freed, and the kernel has to clear the pages of the next one. Has no
    effect without glibc."""
    mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    if not mallopt(M_MMAP_THRESHOLD, bytes_max):
        mallopt(M_MMAP_THRESHOLD, OLD_MMAP_THRESHOLD_MAX)
    mallopt(M_TRIM_THRESHOLD, bytes_max)


class MallocInfo(ctypes.Structure):
    """mallinfo2 of <malloc.h>."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")),
    )


async def return_freed_memory() -> None:
    """Returns memory to the system that has been free for FREE_S, which glibc would keep after a peak. Runs until it is
    cancelled. Does nothing with a glibc before 2.33."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return
    libc.mallinfo2.restype = MallocInfo
    was_free = 0
    while True:
        await asyncio.sleep(FREE_S)
        free = await asyncio.to_thread(lambda: int(libc.mallinfo2().fordblks))
        if min(free, was_free) > FREE_BYTES_MAX:
            await asyncio.to_thread(libc.malloc_trim, FREE_BYTES_KEPT)
            free = 0
        was_free = free
