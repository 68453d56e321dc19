"""Which function builds the encoder of a checkpoint, by the model_type of its config. TorchBackend asks here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from engine_svc.models import bert
from engine_svc.models.encoder import Encoder
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint
from heddle.checkpoint_files import CheckpointError


@dataclass(frozen=True, slots=True)
class Architecture:
    load: Callable[[Mapping[str, Any], Weights], Encoder]
    prefix: str  # of the encoder's weights in a checkpoint with a head


ARCHITECTURES = {
    "bert": Architecture(bert.load, bert.PREFIX),
}


def load_encoder(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> Encoder:
    """Raises CheckpointError for an architecture that is not here, and for weights that do not fit it."""
    where = checkpoint.folder / "config.json"
    model_type = checkpoint.config.get("model_type")
    architecture = ARCHITECTURES.get(str(model_type))
    if architecture is None:
        known = ", ".join(sorted(ARCHITECTURES))
        raise CheckpointError(f"{where}: model type {model_type} is not supported (supported: {known})")
    if "quantization_config" in checkpoint.config:
        raise CheckpointError(f"{where} describes quantized weights, which are not supported")
    weights = Weights(checkpoint.folder, dtype=dtype, device=device, prefix=architecture.prefix)
    return architecture.load(checkpoint.config, weights)
