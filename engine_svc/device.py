"""The device that an engine pod computes on, and which models and number formats it serves. `engine_svc.startup` finds
it once and passes it to whatever depends on it.

The rules for GPUs follow BEI's table (https://docs.baseten.co/engines/bei/overview, "Hardware requirements"). BEI
serves models with causal attention, BEI-Bert those with bidirectional attention. We go by compute capability, so that
the rules also hold for GPUs that are not in the table:

| GPU        | compute capability | BEI  | BEI-Bert | 16 bit   | quantized products |
|------------|--------------------|------|----------|----------|--------------------|
| T4         | 7.5                | No   | Full     | float16  |                    |
| A100, A10G | 8.0, 8.6           | Full | Full     | bfloat16 |                    |
| L4         | 8.9                | Full | Full     | bfloat16 | FP8                |
| H100, H200 | 9.0                | Full | Full     | bfloat16 | FP8                |
| B200       | 10.0               | Full | Full     | bfloat16 | FP8, FP4           |
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.causality import is_causal
from heddle.rpc.settings import ConfigurationError

Capability = tuple[int, int]
DataType = Literal["float32", "bfloat16", "float16"]

# The lowest compute capability with hardware support. torch.cuda.is_bf16_supported() is also true for older GPUs, which
# emulate bfloat16.
CAUSAL_MODELS: Capability = (8, 0)
BFLOAT16: Capability = (8, 0)
FLOAT16: Capability = (7, 0)
FP8: Capability = (8, 9)
FP4: Capability = (10, 0)

# By the number format in the setting `quantization`. int8 is missing: PyTorch has no suitable int8 product on GPUs.
QUANTIZED_PRODUCTS: Mapping[str, Capability] = {"fp8": FP8, "fp4": FP4}

# Model types with hidden states above 65,504, the largest number in float16, according to EmbeddingGemma's model card.
FLOAT16_OVERFLOWS = frozenset({"gemma", "gemma2", "gemma3_text"})

GPU_BATCH_TOKENS = 16_384
# On a CPU more tokens make a pass longer, and others wait for it, but hardly cheaper per token.
CPU_BATCH_TOKENS = 512

# Passes that run side by side on a CPU, each on one core or more. More of them would wait for Python.
CPU_PASSES = 8
# The host packs the second while the first runs.
GPU_PASSES = 2

log = logging.getLogger(__name__)


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
        return f"{self.name} (compute capability {format_capability(self.capability)})"


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


def check_gpu(device: Device, checkpoint: Checkpoint, dtype: str) -> None:
    """Raises ConfigurationError if the GPU cannot serve the model, and logs a warning if it has no hardware for the
    number format. `dtype` is a value of the setting."""
    if device.kind != "cuda":
        return
    check_torch_supports(device)
    if device.capability < CAUSAL_MODELS and is_decoder(checkpoint) and is_causal(checkpoint.config):
        raise ConfigurationError(
            f"{device} serves only models with bidirectional attention, such as BERT; {checkpoint.architecture} "
            f"needs compute capability {format_capability(CAUSAL_MODELS)} (A100, A10G, L4, H100)"
        )
    if dtype == "bfloat16" and device.capability < BFLOAT16:
        log.warning("%s emulates bfloat16, which is slow; --dtype float16 is faster", device)
    if device.capability < FLOAT16:
        log.warning("%s is slow: it has no tensor cores", device)


def warn_of_widening(device: Device, quantization: str) -> None:
    """Logs a warning if the hardware cannot multiply the number format of the setting `quantization`."""
    numbers = quantization.partition("_")[0]
    if numbers in QUANTIZED_PRODUCTS:
        needed = QUANTIZED_PRODUCTS[numbers]
        is_native, what = device.capability >= needed, f"a GPU of compute capability {format_capability(needed)}"
    else:
        numbers, is_native, what = "int8", quantization == "no_quant" or multiplies_int8(device), "a CPU with VNNI"
    if not is_native:
        log.warning(
            "%s does not multiply %s, which needs %s: --quantization %s saves memory, not time",
            *(device, numbers, what, quantization),
        )


def multiplies_int8(device: Device) -> bool:
    import torch

    from engine_svc.models.onednn import has_int8_products

    return has_int8_products(torch.device(device.torch_name))


def check_torch_supports(device: Device) -> None:
    """PyTorch is built for some generations of GPUs, and on an older one fails at the first kernel."""
    import torch

    names = [name.removeprefix("sm_") for name in torch.cuda.get_arch_list()]
    oldest = divmod(min((int(name) for name in names if name.isdecimal()), default=0), 10)
    if device.capability < oldest:
        raise ConfigurationError(
            f"{device} is older than PyTorch {torch.__version__} supports ({format_capability(oldest)})"
        )


def is_decoder(checkpoint: Checkpoint) -> bool:
    from engine_svc.models.architectures.decoder import FAMILIES

    return checkpoint.config.get("model_type") in FAMILIES


def choose_data_type(device: Device, checkpoint: Checkpoint) -> DataType:
    """The number format of `--dtype auto`: the fastest on this hardware that is exact enough. Rounding hardly changes
    the direction of a vector, but it changes a score or a sparse weight directly, so a CPU computes these in float32.
    On a GPU float32 is too slow."""
    if device.kind == "cpu":
        is_vector = checkpoint.kind in (ModelKind.EMBEDDER, ModelKind.MULTI_VECTOR_EMBEDDER)
        return "bfloat16" if is_vector and cpu_has_bfloat16() else "float32"
    if device.capability >= BFLOAT16:
        return "bfloat16"
    if device.capability < FLOAT16:
        return "float32"
    if checkpoint.config.get("model_type") in FLOAT16_OVERFLOWS:
        log.warning("%s overflows in float16: computing in float32, which is slower", checkpoint.architecture)
        return "float32"
    return "float16"


def cpu_has_bfloat16() -> bool:
    import torch

    # PyTorch has no public name for either.
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001


def format_capability(capability: Capability) -> str:
    return ".".join(map(str, capability))
