"""The attention of a decoder's layers by their type: which tokens a layer sees, all or those of a sliding window, and
its rotary positions. The layers of a decoder are all of one type, or of two types in turn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.rotary import (
    FULL_ATTENTION,
    SLIDING_ATTENTION,
    RopeParameters,
    Rotary,
    build_rotary,
    rope_parameters,
    rope_parameters_by_type,
)
from heddle.checkpoint.causality import is_causal

MISTRAL_WINDOW = 4096  # the default


@dataclass(frozen=True, slots=True)
class AttentionType:
    """Layers of one type share it, so that rotations are computed once."""

    pattern: AttentionPattern
    rotary: Rotary


def full_layer_types(config: ModelConfig) -> Sequence[str]:
    """No layer has a window."""
    return [FULL_ATTENTION] * config.num_layers


def mistral_layer_types(config: ModelConfig) -> Sequence[str]:
    """All layers have a window, or none if it is null. A missing one means transformers' default."""
    has_window = config.values.get("sliding_window", MISTRAL_WINDOW) is not None
    return [SLIDING_ATTENTION if has_window else FULL_ATTENTION] * config.num_layers


def qwen_layer_types(config: ModelConfig) -> Sequence[str]:
    first = config.get("max_window_layers", 28) if config.get("use_sliding_window") else None
    return read_layer_types(config) or [
        SLIDING_ATTENTION if first is not None and index >= first else FULL_ATTENTION
        for index in range(config.num_layers)
    ]


def gemma2_layer_types(config: ModelConfig) -> Sequence[str]:
    return read_layer_types(config) or alternate_layer_types(config, 2)


def gemma3_layer_types(config: ModelConfig) -> Sequence[str]:
    period = config.positive("sliding_window_pattern", default=6)
    return read_layer_types(config) or alternate_layer_types(config, period)


def alternate_layer_types(config: ModelConfig, period: int) -> Sequence[str]:
    """The last layer of each period sees everything."""
    return [SLIDING_ATTENTION if index % period else FULL_ATTENTION for index in range(1, config.num_layers + 1)]


def read_layer_types(config: ModelConfig) -> Sequence[str] | None:
    stated = config.get("layer_types")
    if stated is None:
        return None
    if not isinstance(stated, list) or len(stated) != config.num_layers:
        config.refuse("layer_types is not a list of one type for each layer")
    for layer_type in stated:
        if layer_type not in (FULL_ATTENTION, SLIDING_ATTENTION):
            config.refuse(f"the layer type {layer_type} is not supported")
    return stated


def build_attention_types(
    config: ModelConfig,
    layer_types: Sequence[str],
    head_dim: int,
    device: torch.device,
    *,
    scale: float | None,
    softcap: float | None,
) -> Mapping[str, AttentionType]:
    """By layer type."""
    types: dict[str, AttentionType] = {}
    for layer_type in set(layer_types):
        window_left, window_right = read_window(config, layer_type)
        pattern = AttentionPattern(window_left, window_right, scale, softcap)
        rotary = build_rotary(config, layer_rope_parameters(config, layer_type), head_dim, device)
        types[layer_type] = AttentionType(pattern, rotary)
    return types


def read_window(config: ModelConfig, layer_type: str) -> tuple[int | None, int | None]:
    """How many tokens before and after it a token sees. In transformers, a causal window includes the token itself, and
    a window to both sides does not; EmbeddingGemma states the width of both sides together."""
    causal = is_causal(config.values)
    if layer_type == FULL_ATTENTION:
        return None, 0 if causal else None
    is_mistral = config.get("model_type") == "mistral"
    window = config.positive("sliding_window", default=MISTRAL_WINDOW if is_mistral else None)
    if causal:
        return window - 1, 0
    is_width = config.get("model_type") == "gemma3_text" and config.get("use_bidirectional_attention")
    side = window // 2 if is_width else window
    return side, side


def layer_rope_parameters(config: ModelConfig, layer_type: str) -> RopeParameters:
    """transformers 5 states Gemma 3's two bases by layer type. transformers 4 had rope_local_base_freq for the layers
    with a window, and a base and a scaling for all others."""
    if config.get("model_type") != "gemma3_text":
        return rope_parameters(config)
    base = 1_000_000.0 if layer_type == FULL_ATTENTION else 10_000.0
    if config.get("rope_parameters"):
        return {"rope_theta": base, **(rope_parameters_by_type(config, layer_type) or {})}
    if layer_type == FULL_ATTENTION:
        return rope_parameters(config, base)
    return {"rope_theta": config.number("rope_local_base_freq", base)}
