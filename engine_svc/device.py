"""The device that an engine pod computes on, found once at start. `__main__` finds it and passes it to whatever depends
on it: number of passes, size of batches, data type, and the checks in engine_svc.hardware."""

from dataclasses import dataclass
from typing import Literal

from heddle.rpc.settings import ConfigurationError

Capability = tuple[int, int]

GPU_BATCH_TOKENS = 16_384
# On a CPU more make a pass longer, which is what others wait for, and hardly cheaper by token.
CPU_BATCH_TOKENS = 512

# Passes that run side by side, each on a core of its own or on several. Beyond so many they would wait for Python.
CPU_PASSES = 8
# The host packs the second while the first runs.
GPU_PASSES = 2


@dataclass(frozen=True, slots=True)
class Device:
    kind: Literal["cpu", "cuda"]
    index: int = 0  # among the GPUs that this process sees
    name: str = ""
    capability: Capability = (0, 0)
    memory_bytes: int = 0

    @property
    def torch_name(self) -> str:
        return f"cuda:{self.index}" if self.kind == "cuda" else "cpu"

    @property
    def batch_tokens(self) -> int:
        return GPU_BATCH_TOKENS if self.kind == "cuda" else CPU_BATCH_TOKENS

    def __str__(self) -> str:
        if self.kind == "cpu":
            return "the CPU"
        return f"{self.name} (compute capability {dotted(self.capability)})"


CPU = Device("cpu")


def find_device(wanted: str) -> Device:
    """`wanted` is auto, cpu, cuda or cuda:N; auto is the first GPU if there is one. Imports torch. Raises
    ConfigurationError if there is no such GPU."""
    import torch

    count = 0 if wanted == "cpu" or not torch.cuda.is_available() else torch.cuda.device_count()
    if wanted == "cpu" or (wanted == "auto" and not count):
        return CPU
    index = int(wanted.partition(":")[2] or 0)
    if index >= count:
        seen = "no GPU" if not count else "1 GPU" if count == 1 else f"{count} GPUs"
        reason = f"sees {seen}" if torch.version.cuda else f"{torch.__version__} is built without CUDA"
        raise ConfigurationError(f"device {wanted}: PyTorch {reason}")
    properties = torch.cuda.get_device_properties(index)
    return Device("cuda", index, properties.name, (properties.major, properties.minor), properties.total_memory)


def dotted(capability: Capability) -> str:
    return ".".join(map(str, capability))
