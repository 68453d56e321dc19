"""Checks at start whether the weights of a checkpoint fit into the memory of the GPU, from the headers of its files.
Called by `engine_svc.__main__`. Without it, loading would fail only after minutes, with a message that says less."""

import math
from collections.abc import Mapping

import torch

from engine_svc.device import Device
from engine_svc.models.architectures.registry import find_architecture
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.quantization import NO_QUANT, Format
from engine_svc.models.stored_tensors import FLOAT_TYPES, open_stored_tensors
from heddle.checkpoint import Checkpoint
from heddle.rpc.settings import ConfigurationError

# For small passes and the workspaces of the libraries. Larger passes are split when the memory is full.
WORKING_BYTES = 512 << 20

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
# Of each number in the weight of a linear, including its share of the scales.
QUANTIZED_BYTES: Mapping[str, float] = {Format.FP8: 1.0, Format.FP4: 0.5 + 1 / 16}


def check_memory(device: Device, checkpoint: Checkpoint, dtype: str, quantization: str = NO_QUANT) -> None:
    """Raises ConfigurationError if they do not fit. `dtype` must not be auto."""
    if device.kind != "cuda":
        return
    weights = weight_bytes(checkpoint, dtype, quantization)
    free, total = torch.cuda.mem_get_info(device.index)
    if weights + WORKING_BYTES > free:
        raise ConfigurationError(
            f"{checkpoint.name} does not fit into the memory of {device}: its weights take {gib(weights)} in "
            f"{dtype if quantization == NO_QUANT else quantization}, and {gib(free)} of {gib(total)} are free"
        )


def weight_bytes(checkpoint: Checkpoint, dtype: str, quantization: str = NO_QUANT) -> int:
    """Bytes on the device. Tensors of other types than FLOAT_TYPES are stored quantized, and are loaded as they are."""
    config = {name: value for name, value in checkpoint.config.items() if name != "quantization_config"}
    architecture = find_architecture(ModelConfig(config, checkpoint.folder / "config.json"))
    unused = (*architecture.unused, *(architecture.prefix + name for name in architecture.unused))
    total = 0.0
    for name, tensor in open_stored_tensors(checkpoint.folder).items():
        if name.startswith(unused):
            continue
        number_bytes = BYTES[dtype]
        if tensor.data_type not in FLOAT_TYPES:
            number_bytes = 1.0
        elif len(tensor.shape) > 1 and "embed" not in name:
            number_bytes = QUANTIZED_BYTES.get(quantization, number_bytes)
        total += math.prod(tensor.shape) * number_bytes
    return int(total)


def gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
