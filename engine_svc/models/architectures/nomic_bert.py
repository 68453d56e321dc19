"""Nomic-BERT: nomic-embed-text v1, v1.5 and v2-moe, CodeRankEmbed.

The config is GPT-2's in its names, or that of transformers' class, or both at once.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from engine_svc.models.architectures import bert, rotary_bert
from engine_svc.models.architectures.rotary_bert import (
    Names,
    is_native,
    load_gated_feed_forward,
    load_plain_feed_forward,
)
from engine_svc.models.experts import Experts, expert_feed_forwards
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.rope_scaling import rope_parameters, rotary_of
from engine_svc.models.rotary import Rotary, Stretch
from engine_svc.models.transformer import Transformer
from engine_svc.models.weights import Weights

PREFIX = "nomic_bert."
UNUSED = ("pooler.", "cls.")

NAMES = Names(
    embedding_norm="emb_ln",
    layers="encoder.layers",
    query_key_value=("attn.Wqkv",),
    attention_output="attn.out_proj",
    attention_norm="norm1",
    feed_forward_norm="norm2",
)

USUAL_NAMES = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "layer_norm_epsilon": "layer_norm_eps",
}

# What becomes of the gate, by the name of the whole.
GATES = {"swiglu": "silu", "geglu": "gelu"}

# What the authors' code can do beside what they published.
NEVER = ("prenorm", "parallel_block", "causal", "use_rms_norm", "rotary_emb_interleaved", "expert_choice_router")


def load(config: ModelConfig, weights: Weights) -> Transformer:
    """Raises CheckpointError for a tensor that is missing or not of the config's shape, and for what Nomic-BERT is
    not."""
    for name in NEVER:
        config.require(name, False)
    config.require("rotary_emb_scale_base", None)
    config = in_usual_names(config)
    return rotary_bert.load(
        config,
        weights,
        NAMES,
        load_rotary(config, weights),
        lambda index, layer: load_feed_forward(config, weights, index, f"{layer}.mlp"),
        attention_bias=bool(config.get("qkv_proj_bias")),
    )


def in_usual_names(config: ModelConfig) -> ModelConfig:
    usual = {name: config.values[own] for own, name in USUAL_NAMES.items() if own in config.values}
    stated = config.get("activation_function")
    if stated is not None:
        usual["hidden_act"] = GATES.get(stated, stated)
    return dataclasses.replace(config, values={**config.values, **usual})


def load_rotary(config: ModelConfig, weights: Weights) -> Rotary:
    parameters = rope_parameters(config, config.number("rotary_emb_base", 1000.0))
    rotated = config.number("rotary_emb_fraction", parameters["partial_rotary_factor"])
    if not 0 < rotated <= 1:
        config.refuse(f"rotary_emb_fraction {rotated} is not supported")
    head_dim = config.head_dim(config.positive("hidden_size"), config.positive("num_attention_heads"))
    rotary = rotary_of(config, {**parameters, "partial_rotary_factor": rotated}, head_dim, weights.device)
    factor = config.get("rotary_scaling_factor")
    if factor is None and parameters.get("rope_type") == "dynamic":
        factor = parameters.get("factor")
    if factor is None:
        return rotary
    trained = config.positive("max_trained_positions", "max_position_embeddings", default=2048)
    return dataclasses.replace(rotary, stretch=Stretch(float(factor), trained))


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
        gate_up=(f"{name}.{gate}", f"{name}.{up}"),
        down=f"{name}.{down}",
        bias=bias,
        down_bias=down_bias,
    )


def load_experts(config: ModelConfig, weights: Weights, name: str) -> Experts:
    """Stored one below the other, both ways as intermediate rows of the hidden size."""
    config.require("moe_normalize_expert_weights", False)
    config.require("num_shared_experts", 0)
    hidden, intermediate = config.positive("hidden_size"), config.positive("intermediate_size")
    count, chosen = config.positive("num_experts"), config.positive("moe_top_k")
    activation = config.activation("hidden_act")
    ups = weights.take(f"{name}.experts.mlp.w1", [count * intermediate, hidden]).view(count, intermediate, hidden)
    downs = weights.take(f"{name}.experts.mlp.w2", [count * intermediate, hidden]).view(count, intermediate, hidden)
    return Experts(
        router=weights.take(f"{name}.router.layer.weight", [count, hidden], torch.float32),
        feed_forwards=expert_feed_forwards(ups, downs, activation),
        chosen=chosen,
        bias=weights.take(f"{name}.experts.bias", [hidden]),
    )


HEADS = bert.classifiers()
