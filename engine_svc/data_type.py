"""Chooses the number format of `--dtype auto`. Called by `__main__`, and by TorchBackend without a pod."""

import logging
from typing import Literal

from engine_svc.device import Device
from engine_svc.hardware import BFLOAT16, FLOAT16, FLOAT16_OVERFLOWS
from heddle.checkpoint import Checkpoint, ModelKind

KINDS_OF_VECTORS = (ModelKind.EMBEDDER, ModelKind.MULTI_VECTOR_EMBEDDER)

DataType = Literal["float32", "bfloat16", "float16"]

log = logging.getLogger(__name__)


def auto_data_type(device: Device, checkpoint: Checkpoint) -> DataType:
    """The fastest format of the hardware that is exact enough. Rounding hardly changes the direction of a vector, but
    changes a score or a sparse weight directly, so a CPU computes these in float32. On a GPU float32 is too slow."""
    if device.kind == "cpu":
        return "bfloat16" if checkpoint.kind in KINDS_OF_VECTORS and cpu_has_bfloat16() else "float32"
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
