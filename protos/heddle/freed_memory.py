"""How much memory that this process has freed it keeps. The engine and the tokenizer call it."""

import ctypes
from collections.abc import Callable

# <malloc.h>
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

# The most that older versions of glibc accept.
MMAP_THRESHOLD_SURE = 32 << 20


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
