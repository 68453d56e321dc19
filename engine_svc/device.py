"""What this machine computes on, told without importing torch, which takes seconds. Used while wiring the pod."""

from pathlib import Path

GPU_BATCH_TOKENS = 16_384
# On a CPU more make a pass longer, which is what others wait for, and hardly cheaper by token.
CPU_BATCH_TOKENS = 512

# Passes that run side by side, each on a core of its own or on several. Beyond so many they would wait for Python.
CPU_PASSES = 8


def has_nvidia_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


def batch_tokens_default() -> int:
    return GPU_BATCH_TOKENS if has_nvidia_gpu() else CPU_BATCH_TOKENS
