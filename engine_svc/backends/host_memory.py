"""How this process handles memory that is freed: at once back to the system while a model is loaded, kept for the next
forward pass afterwards. TorchBackend calls both when it computes on the CPU.
"""

import ctypes
from collections.abc import Callable

# <malloc.h>
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

BYTES_KEPT = 1 << 30
# The most that older versions of glibc accept.
MMAP_THRESHOLD_SURE = 32 << 20
# What glibc starts with.
BYTES_KEPT_AT_START = 128 << 10


def return_freed_memory() -> None:
    """glibc's own threshold rises with the blocks that are freed, up to 32 MiB. Weights that are then replaced by a
    packed copy leave holes in its heap which no later weights fill: a third of a model for as long as the process
    lives. Set, the threshold stays. For the whole process; nothing happens without glibc."""
    mallopt = mallopt_of_glibc()
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, BYTES_KEPT_AT_START)
        mallopt(M_TRIM_THRESHOLD, BYTES_KEPT_AT_START)


def keep_freed_memory() -> None:
    """glibc hands large blocks back to the system as soon as they are free, so each pass would have the kernel clear
    the pages of its activations anew: a twentieth of the time in float32, far more where the products are faster.
    Kept instead, they cost what the largest batch needs. For the whole process; nothing happens without glibc."""
    mallopt = mallopt_of_glibc()
    if mallopt is None:
        return
    if not mallopt(M_MMAP_THRESHOLD, BYTES_KEPT):
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_SURE)
    mallopt(M_TRIM_THRESHOLD, BYTES_KEPT)


def mallopt_of_glibc() -> Callable[[int, int], int] | None:
    return getattr(ctypes.CDLL(None), "mallopt", None)
