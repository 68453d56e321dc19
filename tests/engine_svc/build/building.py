"""Builds artifacts of small checkpoints for tests."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from engine_svc.build.artifact import ArtifactPlan
from engine_svc.build.configuration import Configuration
from engine_svc.build.quantizer import Quantizer
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.language_models import AUTO
from heddle.checkpoint.sentence_modules import PoolingSetting


def build(
    root: Path,
    output: Path,
    *,
    name: str = "",
    pooling: PoolingSetting = "auto",
    score_tokens: str = AUTO,
    data_type: str = "",
    quantizer: Quantizer | None = None,
    threads: int = 2,
    **options: Any,
) -> Path:
    """Returns `output`."""
    checkpoint = Checkpoint.read(root, name, pooling, score_tokens)
    plan = ArtifactPlan.of(
        root,
        checkpoint,
        Configuration.of(root, checkpoint, data_type=data_type),
        data_type=data_type,
        quantizer=quantizer,
        **options,
    )
    output.mkdir(parents=True)
    plan.write(output, [torch.device("cpu")] * threads, lambda size: None)
    return output


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Returns tensors in file order."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.offset_keys()}


def read_folder(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
