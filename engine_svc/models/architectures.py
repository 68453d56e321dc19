"""Which functions build the encoder and the head of a checkpoint, by the model_type of its config. Backends ask here.

An architecture is one line in ARCHITECTURES. Its heads are a table by kind of model; embedders have none of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from engine_svc.models import bert, bert_heads
from engine_svc.models.encoder import Encoder
from engine_svc.models.heads.embedding import EmbeddingHead
from engine_svc.models.heads.head import Head
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint_files import CheckpointError


@dataclass(frozen=True, slots=True)
class Architecture:
    load: Callable[[Mapping[str, Any], Weights], Encoder]
    prefix: str  # of the encoder's weights in a checkpoint with a head
    heads: Mapping[ModelKind, Callable[[Checkpoint, Weights], Head]]


ARCHITECTURES = {
    "bert": Architecture(bert.load, bert.PREFIX, bert_heads.HEADS),
}


def load_encoder(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> Encoder:
    """Raises CheckpointError for an architecture that is not here, and for weights that do not fit it."""
    architecture = architecture_of(checkpoint)
    weights = Weights(checkpoint.folder, dtype=dtype, device=device, prefix=architecture.prefix)
    return architecture.load(checkpoint.config, weights)


def load_head(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> Head:
    """Raises CheckpointError as `load_encoder` does, and for a kind of model that the architecture has no head for."""
    if checkpoint.kind is ModelKind.EMBEDDER:
        return EmbeddingHead(checkpoint.pooling, checkpoint.dimension)
    architecture = architecture_of(checkpoint)
    load = architecture.heads.get(checkpoint.kind)
    if load is None:
        model_type = checkpoint.config["model_type"]
        raise CheckpointError(f"{checkpoint.folder} is a {model_type} {checkpoint.kind}, which is not supported")
    return load(checkpoint, Weights(checkpoint.folder, dtype=dtype, device=device, prefix=architecture.prefix))


def architecture_of(checkpoint: Checkpoint) -> Architecture:
    where = checkpoint.folder / "config.json"
    model_type = checkpoint.config.get("model_type")
    architecture = ARCHITECTURES.get(str(model_type))
    if architecture is None:
        known = ", ".join(sorted(ARCHITECTURES))
        raise CheckpointError(f"{where}: model type {model_type} is not supported (supported: {known})")
    if "quantization_config" in checkpoint.config:
        raise CheckpointError(f"{where} describes quantized weights, which are not supported")
    return architecture
