"""Checks at start whether the weights of a checkpoint fit into the memory of the GPU, from the headers of its files.
Called by `engine_svc.__main__`. Loading would fail after minutes, and say less."""

import math

import torch

from engine_svc.device import Device
from engine_svc.hardware import NO_QUANT
from engine_svc.models.architectures.table import architecture_of
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.stored_tensors import FLOAT_TYPES, stored_tensors
from heddle.checkpoint import Checkpoint
from heddle.rpc.settings import ConfigurationError

# For the smallest passes and the workspaces of the libraries. Larger passes are split when the memory is full.
WORKING_BYTES = 512 << 20

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
# Of a number in the weight of a linear, with its part of the scales.
QUANTIZED_BYTES = {"fp8": 1.0, "fp4": 0.5 + 1 / 16}


def check_memory(device: Device, checkpoint: Checkpoint, dtype: str, quantization: str = NO_QUANT) -> None:
    """Raises ConfigurationError. `dtype` is not auto."""
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
    """On the device. Numbers of other types than the usual four are quantized already, and are loaded as they are."""
    config = {name: value for name, value in checkpoint.config.items() if name != "quantization_config"}
    architecture = architecture_of(ModelConfig(config, checkpoint.folder / "config.json"))
    unused = (*architecture.unused, *(architecture.prefix + name for name in architecture.unused))
    total = 0.0
    for name, tensor in stored_tensors(checkpoint.folder).items():
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
