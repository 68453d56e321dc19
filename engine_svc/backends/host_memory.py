"""How this process handles memory that a forward pass frees. TorchBackend calls it when it computes on the CPU."""

import ctypes

# <malloc.h>
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

BYTES_KEPT = 1 << 30
# The most that older versions of glibc accept.
MMAP_THRESHOLD_SURE = 32 << 20


def keep_freed_memory() -> None:
    """glibc hands large blocks back to the system as soon as they are free, so each pass would have the kernel clear
    the pages of its activations anew: a twentieth of the time in float32, far more where the products are faster.
    Kept instead, they cost what the largest batch needs. For the whole process; nothing happens without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    if not mallopt(M_MMAP_THRESHOLD, BYTES_KEPT):
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_SURE)
    mallopt(M_TRIM_THRESHOLD, BYTES_KEPT)
