"""Which functions build the transformer and the head of a checkpoint, by the model_type of its config.

`engine_svc.models.model` asks here. Heads are a table by kind of model; embedders have none of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine_svc.models.architectures import bert, decoder
from engine_svc.models.heads.head import Head
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.transformer import Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint, ModelKind


@dataclass(frozen=True, slots=True)
class Architecture:
    load: Callable[[ModelConfig, Weights], Transformer]
    prefix: str  # of the transformer's weights in a checkpoint with a head
    heads: Mapping[ModelKind, Callable[[Checkpoint, Weights], Head]] = field(default_factory=dict)
    unused: tuple[str, ...] = ()  # beginnings of names of tensors that may be there and are not used


ARCHITECTURES = {
    "bert": Architecture(bert.load, bert.PREFIX, bert.HEADS, bert.UNUSED),
    **dict.fromkeys(decoder.FAMILIES, Architecture(decoder.load, decoder.PREFIX, decoder.HEADS, decoder.UNUSED)),
}

# What the same model_type stands for in checkpoints that bring code of their own, by their position_embedding_type.
VARIANTS: Mapping[tuple[str, str], Architecture] = {}


def architecture_of(config: ModelConfig) -> Architecture:
    """Raises CheckpointError for one that is not here."""
    model_type = str(config.get("model_type"))
    variant = VARIANTS.get((model_type, str(config.get("position_embedding_type"))))
    architecture = variant or ARCHITECTURES.get(model_type)
    if architecture is None:
        known = ", ".join(sorted(ARCHITECTURES))
        config.refuse(f"model type {model_type} is not supported (supported: {known})")
    if config.get("quantization_config"):
        config.refuse("describes quantized weights, which are not supported")
    return architecture
