"""The second GTE, which calls itself `new`, and `gte` at Snowflake and in transformers: gte-base and gte-large-en-v1.5,
gte-multilingual-base and its reranker, arctic-embed-m-v2.0."""

import dataclasses

from engine_svc.models.architectures import bert, rotary_bert
from engine_svc.models.architectures.rotary_bert import Names, is_native, load_gated_feed_forward
from engine_svc.models.heads.head import Head
from engine_svc.models.linear import Linear, load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.rope_scaling import rope_parameters, rotary_of
from engine_svc.models.transformer import GatedFeedForward, Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint, ModelKind

PREFIX = "gte."
NEW_PREFIX = "new."
UNUSED = ("pooler.", "lm_head.", "classifier.")  # gte-multilingual-base has a classifier of tokens beside its vectors

NAMES = Names(
    embedding_norm="embeddings.LayerNorm",
    layers="encoder.layer",
    query_key_value=("attention.qkv_proj",),
    attention_output="attention.o_proj",
    attention_norm="attn_ln",
    feed_forward_norm="mlp_ln",
)
SEPARATE_NAMES = dataclasses.replace(
    NAMES, query_key_value=("attention.q_proj", "attention.k_proj", "attention.v_proj")
)


def load(config: ModelConfig, weights: Weights) -> Transformer:
    """Raises CheckpointError for a tensor that is missing or not of the config's shape, and for what GTE is not."""
    config.require("position_embedding_type", "rope")
    config.require("layer_norm_type", "layer_norm")
    config.require("logn_attention_scale", False)
    head_dim = config.head_dim(config.positive("hidden_size"), config.positive("num_attention_heads"))
    base_default = 160_000.0 if is_native(weights) else 10_000.0
    return rotary_bert.load(
        config,
        weights,
        NAMES if config.get("pack_qkv", True) else SEPARATE_NAMES,
        rotary_of(config, rope_parameters(config, base_default), head_dim, weights.device),
        lambda _, layer: load_feed_forward(config, weights, f"{layer}.mlp"),
    )


def load_feed_forward(config: ModelConfig, weights: Weights, name: str) -> GatedFeedForward:
    gate_up: Linear | tuple[str, str] = (f"{name}.gate_proj", f"{name}.up_proj")
    if not is_native(weights):
        gate_up = load_up_gate(config, weights, f"{name}.up_gate_proj")
    return load_gated_feed_forward(config, weights, gate_up=gate_up, down=f"{name}.down_proj", down_bias=True)


def load_up_gate(config: ModelConfig, weights: Weights, name: str) -> Linear:
    """Stored with what is activated below what it multiplies."""
    hidden, intermediate = config.positive("hidden_size"), config.positive("intermediate_size")
    return load_linear(weights, name, 2 * intermediate, hidden, bias=False, first_row=intermediate)


def load_splade(checkpoint: Checkpoint, weights: Weights) -> Head:
    """Of GteForMaskedLM and NewForMaskedLM. Raises CheckpointError."""
    norm = "lm_head.layer_norm" if is_native(weights) else "lm_head.norm"
    decoder = "lm_head.decoder"
    return bert.load_splade(
        checkpoint, weights, dense="lm_head.dense", norm=norm, decoder=decoder, bias=f"{decoder}.bias"
    )


HEADS: bert.Heads = {**bert.classifiers(), ModelKind.SPARSE_EMBEDDER: load_splade}
