"""Layers of two types that take turns, those that see all of the text and those that see a window of it, as the
configurations of ModernBERT and of the decoders call them."""

from engine_svc.models.model_config import ModelConfig
from engine_svc.models.rope_scaling import Parameters

FULL, SLIDING = "full_attention", "sliding_attention"


def stated_rope(config: ModelConfig, layer_type: str) -> Parameters | None:
    """What transformers 5 states of one type of layer; None where it states nothing. Raises CheckpointError for what is
    stated of all layers alike: there is no telling for which of them it is meant."""
    stated = config.get("rope_parameters") or {}
    if not isinstance(stated, dict) or not stated.keys() <= {FULL, SLIDING}:
        config.refuse(f"rope_parameters are not by layer type ({FULL}, {SLIDING})")
    return stated.get(layer_type) or None
