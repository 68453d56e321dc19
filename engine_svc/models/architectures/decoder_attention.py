"""What a layer of a decoder sees and how it knows distances, by the layer's type: all tokens, or those of a sliding
window. Every decoder family of `decoder.py` is made of such layers, all of one type or in turn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from engine_svc.models.architectures.layer_types import FULL, SLIDING, stated_rope
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.rope_scaling import Parameters, rope_parameters, rotary_of
from engine_svc.models.rotary import Rotary
from heddle.checkpoint.causality import is_causal

WINDOW_OF_MISTRAL = 4096  # where the config has none


@dataclass(frozen=True, slots=True)
class Sight:
    """Layers of a type share it, so that rotations are computed once."""

    pattern: AttentionPattern
    rotary: Rotary


def layer_types_of_all(config: ModelConfig) -> Sequence[str]:
    """Llama: no layer has a window."""
    return [FULL] * config.positive("num_hidden_layers")


def layer_types_of_mistral(config: ModelConfig) -> Sequence[str]:
    """All layers have one, or none, which is null; a config that says nothing means transformers' default."""
    has_window = config.values.get("sliding_window", WINDOW_OF_MISTRAL) is not None
    return [SLIDING if has_window else FULL] * config.positive("num_hidden_layers")


def layer_types_of_qwen(config: ModelConfig) -> Sequence[str]:
    first = config.get("max_window_layers", 28) if config.get("use_sliding_window") else None
    return stated_layer_types(config) or [
        SLIDING if first is not None and index >= first else FULL
        for index in range(config.positive("num_hidden_layers"))
    ]


def layer_types_of_gemma2(config: ModelConfig) -> Sequence[str]:
    return stated_layer_types(config) or alternating(config, 2)


def layer_types_of_gemma3(config: ModelConfig) -> Sequence[str]:
    return stated_layer_types(config) or alternating(config, config.positive("sliding_window_pattern", default=6))


def alternating(config: ModelConfig, period: int) -> Sequence[str]:
    """The last of each so many layers sees everything."""
    return [FULL if index % period == 0 else SLIDING for index in range(1, config.positive("num_hidden_layers") + 1)]


def stated_layer_types(config: ModelConfig) -> Sequence[str] | None:
    stated = config.get("layer_types")
    if stated is None:
        return None
    if not isinstance(stated, list) or len(stated) != config.positive("num_hidden_layers"):
        config.refuse("layer_types is not a list of one type for each layer")
    for layer_type in stated:
        if layer_type not in (FULL, SLIDING):
            config.refuse(f"the layer type {layer_type} is not supported")
    return stated


def sights_of(
    config: ModelConfig,
    layer_types: Sequence[str],
    head_dim: int,
    device: torch.device,
    *,
    scale: float | None,
    softcap: float | None,
) -> Mapping[str, Sight]:
    """By layer type."""
    sights: dict[str, Sight] = {}
    for layer_type in set(layer_types):
        behind, ahead = reach_of(config, layer_type)
        pattern = AttentionPattern(behind, ahead, scale, softcap)
        sights[layer_type] = Sight(pattern, rotary_of(config, rope_of(config, layer_type), head_dim, device))
    return sights


def reach_of(config: ModelConfig, layer_type: str) -> tuple[int | None, int | None]:
    """How many tokens a token sees behind it and ahead of it, as transformers counts them: a causal window counts the
    token itself, one to both sides does not; EmbeddingGemma states the width of both sides together."""
    causal = is_causal(config.values)
    if layer_type == FULL:
        return None, 0 if causal else None
    is_mistral = config.get("model_type") == "mistral"
    window = config.positive("sliding_window", default=WINDOW_OF_MISTRAL if is_mistral else None)
    if causal:
        return window - 1, 0
    is_width = config.get("model_type") == "gemma3_text" and config.get("use_bidirectional_attention")
    reach = window // 2 if is_width else window
    return reach, reach


def rope_of(config: ModelConfig, layer_type: str) -> Parameters:
    """transformers 5 states Gemma 3's two bases by layer type; transformers 4 had rope_local_base_freq for the layers
    with a window, beside a base and a scaling for all others."""
    if config.get("model_type") != "gemma3_text":
        return rope_parameters(config)
    base = 1_000_000.0 if layer_type == FULL else 10_000.0
    if config.get("rope_parameters"):
        return {"rope_theta": base, **(stated_rope(config, layer_type) or {})}
    if layer_type == FULL:
        return rope_parameters(config, base)
    return {"rope_theta": config.number("rope_local_base_freq", base)}
