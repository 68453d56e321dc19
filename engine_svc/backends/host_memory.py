"""How this process handles memory that is freed: at once back to the system while a model is loaded, kept for the next
forward pass afterwards. TorchBackend calls both when it computes on the CPU.
"""

from heddle import machine

BYTES_KEPT = 1 << 30
# What glibc starts with.
BYTES_KEPT_AT_START = 128 << 10


def return_freed_memory() -> None:
    """glibc's own threshold rises with the blocks that are freed, up to 32 MiB. Weights that are then replaced by a
    packed copy leave holes in its heap which no later weights fill: a third of a model for as long as the process
    lives. Set, the threshold stays."""
    machine.keep_freed_memory(BYTES_KEPT_AT_START)


def keep_freed_memory() -> None:
    """Otherwise each pass would have the kernel clear the pages of its activations anew: a twentieth of the time in
    float32, far more where the products are faster. Kept, they cost what the largest batch needs."""
    machine.keep_freed_memory(BYTES_KEPT)
