"""Nomic-BERT: nomic-embed-text v1, v1.5 and v2-moe, CodeRankEmbed.

Its config has the names of GPT-2, those of transformers' class, or both at once.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from engine_svc.models.architectures import rotary_bert
from engine_svc.models.architectures.rotary_bert import (
    Names,
    is_native,
    load_gated_feed_forward,
    load_plain_feed_forward,
)
from engine_svc.models.experts import Experts, build_experts
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.rotary import DynamicScaling, Rotary, build_rotary, rope_parameters
from engine_svc.models.transformer import Transformer
from engine_svc.models.weights import Weights

NAMES = Names(
    embedding_norm="emb_ln",
    layers="encoder.layers",
    qkv_proj=("attn.Wqkv",),
    o_proj="attn.out_proj",
    attention_norm="norm1",
    feed_forward_norm="norm2",
)

STANDARD_NAMES = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "layer_norm_epsilon": "layer_norm_eps",
}

# The activation of the gate, by the name of the whole.
GATES = {"swiglu": "silu", "geglu": "gelu"}

# Settings of the authors' code that no published model has.
UNSUPPORTED = ("prenorm", "parallel_block", "causal", "use_rms_norm", "rotary_emb_interleaved", "expert_choice_router")


def load(config: ModelConfig, weights: Weights) -> Transformer:
    for name in UNSUPPORTED:
        config.require(name, False)
    config.require("rotary_emb_scale_base", None)
    config = use_standard_names(config)
    return rotary_bert.load(
        config,
        weights,
        NAMES,
        load_rotary(config, weights),
        lambda index, layer: load_feed_forward(config, weights, index, f"{layer}.mlp"),
        attention_bias=bool(config.get("qkv_proj_bias")),
    )


def use_standard_names(config: ModelConfig) -> ModelConfig:
    values = {name: config.values[own] for own, name in STANDARD_NAMES.items() if own in config.values}
    stated = config.get("activation_function")
    if stated is not None:
        values["hidden_act"] = GATES.get(stated, stated)
    return dataclasses.replace(config, values={**config.values, **values})


def load_rotary(config: ModelConfig, weights: Weights) -> Rotary:
    parameters = rope_parameters(config, config.number("rotary_emb_base", 1000.0))
    fraction = config.number("rotary_emb_fraction", parameters["partial_rotary_factor"])
    if not 0 < fraction <= 1:
        config.refuse(f"rotary_emb_fraction {fraction} is not supported")
    parameters = {**parameters, "partial_rotary_factor": fraction}
    rotary = build_rotary(config, parameters, config.head_dim, weights.device)
    factor = config.get("rotary_scaling_factor")
    if factor is None and parameters.get("rope_type") == "dynamic":
        factor = parameters.get("factor")
    if factor is None:
        return rotary
    trained = config.positive("max_trained_positions", "max_position_embeddings", default=2048)
    return dataclasses.replace(rotary, dynamic=DynamicScaling(float(factor), trained))


def load_feed_forward(config: ModelConfig, weights: Weights, index: int, name: str) -> Callable[[Tensor], Tensor]:
    every = config.get("moe_every_n_layers", 0)
    if every and index % every == 1:
        return load_experts(config, weights, name)
    bias, down_bias = bool(config.get("mlp_fc1_bias")), bool(config.get("mlp_fc2_bias"))
    if config.get("activation_function", "swiglu") not in GATES:
        config.require("mlp_fc2_bias", bias)
        return load_plain_feed_forward(config, weights, name, bias=bias)
    gate, up, down = ("gate_proj", "up_proj", "down_proj") if is_native(weights) else ("fc12", "fc11", "fc2")
    return load_gated_feed_forward(
        config,
        weights,
        gate_up_proj=(f"{name}.{gate}", f"{name}.{up}"),
        down_proj=f"{name}.{down}",
        bias=bias,
        down_bias=down_bias,
    )


def load_experts(config: ModelConfig, weights: Weights, name: str) -> Experts:
    """Experts are stored one below the other. Both of their matrices are stored as [intermediate size, hidden size]."""
    config.require("moe_normalize_expert_weights", False)
    config.require("num_shared_experts", 0)
    hidden_size, intermediate_size = config.hidden_size, config.intermediate_size
    count, top_k = config.positive("num_experts"), config.positive("moe_top_k")
    ups, downs = (
        weights.load(f"{name}.experts.mlp.{part}", [count * intermediate_size, hidden_size]).view(
            count, intermediate_size, hidden_size
        )
        for part in ("w1", "w2")
    )
    return Experts(
        router=weights.load(f"{name}.router.layer.weight", [count, hidden_size], torch.float32),
        feed_forwards=build_experts(ups, downs, config.activation("hidden_act")),
        top_k=top_k,
        bias=weights.load(f"{name}.experts.bias", [hidden_size]),
    )
