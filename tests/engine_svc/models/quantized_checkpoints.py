"""Writes checkpoints in the formats of NVIDIA's ModelOpt, from their description, and computes vectors of quantized
models."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models.float8 import FLOAT8
from engine_svc.sequences import PackedBatch
from heddle.checkpoint import Checkpoint
from tests.checkpoints import write_json
from tests.sequences import run_each

Vectors = Sequence[np.ndarray[Any, np.dtype[np.float32]]]


def vectors(checkpoint: Checkpoint, batch: PackedBatch, quantization: str, dtype: str = "bfloat16") -> Vectors:
    return list(run_each(TorchBackend(checkpoint, dtype=dtype, device="cpu", quantization=quantization), batch))


def cosines(ours: Vectors, theirs: Vectors) -> list[float]:
    return [
        float(np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))
        for one, other in zip(ours, theirs, strict=True)
    ]


def least_cosine(ours: Vectors, theirs: Vectors) -> float:
    return min(cosines(ours, theirs))


def fp8_of(weight: Tensor) -> dict[str, Tensor]:
    scale = weight.abs().max() / 448
    return {"weight": (weight / scale).to(FLOAT8), "weight_scale": scale, "input_scale": torch.tensor(0.01)}


def fp8_by_channel_of(weight: Tensor) -> dict[str, Tensor]:
    scales = weight.abs().amax(1) / 448
    return {"weight": (weight / scales[:, None]).to(FLOAT8), "weight_scale": scales}


LEVELS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def quantize_to_nvfp4(weight: Tensor) -> dict[str, Tensor]:
    """Follows the description of the layout: lower bits first, a scale for each 16 numbers and one for all."""
    overall = weight.abs().max() / (6 * 448)
    blocks = weight.view(len(weight), -1, 16)
    scales = (blocks.abs().amax(2) / 6 / overall).to(FLOAT8)
    scaled = blocks / (scales.float() * overall)[..., None]
    codes = (scaled.abs()[..., None] - LEVELS).abs().argmin(-1) + 8 * (scaled < 0)
    codes = codes.view(weight.shape).to(torch.uint8)
    packed = codes[:, 0::2] + 16 * codes[:, 1::2]
    return {"weight": packed, "weight_scale": scales, "weight_scale_2": overall, "input_scale": torch.tensor(0.01)}


def write_stored(folder: Path, algorithm: str, stored_form: Callable[[Tensor], dict[str, Tensor]]) -> None:
    """Rewrites the linears of the decoder in `folder` as ModelOpt stores them."""
    quantized: dict[str, Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        parts = stored_form(tensor) if "_proj" in name else {"weight": tensor}
        quantized |= {name.removesuffix("weight") + part: own.contiguous() for part, own in parts.items()}
    save_file(quantized, folder / "model.safetensors")
    write_json(folder / "hf_quant_config.json", {"quantization": {"quant_algo": algorithm, "exclude_modules": []}})


def change_linears(folder: Path, changed: Callable[[Tensor], Tensor]) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: changed(tensor) if "_proj" in name else tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors")


def int8_of(weight: Tensor) -> dict[str, Tensor]:
    scales = weight.abs().amax(1) / 127
    return {"weight": (weight / scales[:, None]).round().to(torch.int8), "weight_scale": scales}


SMOOTHING = torch.linspace(0.25, 4, 128)


def smooth_int8_of(weight: Tensor) -> dict[str, Tensor]:
    smoothing = SMOOTHING.repeat(2)[: weight.shape[1]]
    return {
        **int8_of(weight / smoothing),
        "pre_quant_scale": smoothing,
        "input_scale": torch.tensor(0.01),
    }
