"""What this machine computes on, told without importing torch, which takes seconds. Used while wiring the pod."""

from pathlib import Path

GPU_BATCH_TOKENS = 16_384
# On a CPU the activations of a batch should stay in cache.
CPU_BATCH_TOKENS = 2_048


def has_nvidia_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


def batch_tokens_default() -> int:
    return GPU_BATCH_TOKENS if has_nvidia_gpu() else CPU_BATCH_TOKENS
