"""BERT with rotary positions: GTE, Jina v3, and Nomic-BERT (in its own file). Each has its own names for the same
tensors, and its own feed-forward. All three exist as their authors laid them out, for code of their own, and in the
form of transformers' classes ("native").

GTE is the second one, which calls itself `new`, or `gte` at Snowflake and in transformers: gte-base and
gte-large-en-v1.5, gte-multilingual-base and its reranker, arctic-embed-m-v2.0. Jina's XLM-RoBERTa is jina-embeddings-v3
and jina-reranker-v2; positions are rotary in the former, for long texts, and learned in the reranker.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from engine_svc.models.architectures import bert, bert_variants
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.heads.head import Head
from engine_svc.models.linear import Linear, load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.rotary import Rotary, build_rotary, rope_parameters
from engine_svc.models.transformer import Attention, Embeddings, FeedForward, GatedFeedForward, Layer, Transformer
from engine_svc.models.weights import LoraDeltas, Weights
from heddle.checkpoint import Checkpoint, ModelKind


@dataclass(frozen=True, slots=True)
class Names:
    """A checkpoint's names of tensors. Those of a layer are below `layers`.<index>."""

    embedding_norm: str
    layers: str
    qkv_proj: tuple[str, ...]  # one for all, or one each
    o_proj: str
    attention_norm: str
    feed_forward_norm: str


NATIVE_NAMES = Names(
    embedding_norm="embeddings.LayerNorm",
    layers="layers",
    qkv_proj=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    o_proj="self_attn.o_proj",
    attention_norm="post_attention_layernorm",
    feed_forward_norm="post_mlp_layernorm",
)

# Loads the feed-forward of the layer with this index, whose tensors have this name.
LoadFeedForward = Callable[[int, str], Callable[[Tensor], Tensor]]


def is_native(weights: Weights) -> bool:
    """Whether tensors have the names of transformers' classes."""
    return weights.has(f"{NATIVE_NAMES.layers}.0.{NATIVE_NAMES.o_proj}.weight")


def load(
    config: ModelConfig,
    weights: Weights,
    names: Names,
    rotary: Rotary | None,
    load_feed_forward: LoadFeedForward,
    *,
    attention_bias: bool = True,
    positions: Tensor | None = None,
) -> Transformer:
    """`names` are the authors'."""
    if is_native(weights):
        names = NATIVE_NAMES

    def load_layer(index: int) -> Layer:
        name = f"{names.layers}.{index}"
        return Layer(
            attention=load_attention(config, weights, name, names, rotary, bias=attention_bias),
            attention_norms=bert.load_post_norm(config, weights, f"{name}.{names.attention_norm}"),
            feed_forward=load_feed_forward(index, name),
            feed_forward_norms=bert.load_post_norm(config, weights, f"{name}.{names.feed_forward_norm}"),
        )

    return Transformer(
        embeddings=load_embeddings(config, weights, names.embedding_norm, positions),
        layers=weights.load_each(load_layer, range(config.num_layers)),
    )


def load_embeddings(config: ModelConfig, weights: Weights, norm: str, positions: Tensor | None) -> Embeddings:
    hidden_size = config.hidden_size
    words = weights.load("embeddings.word_embeddings.weight", [config.vocab_size, hidden_size])
    types: Tensor | None = None
    type_lora: LoraDeltas = ()
    if config.get("type_vocab_size", 0):
        count = config.positive("type_vocab_size")
        type_lora = weights.load_lora([("embeddings.token_type_embeddings", count)], hidden_size)
        types = weights.load("embeddings.token_type_embeddings.weight", [count, hidden_size])
    if types is not None and len(types) == 1:  # all tokens have it, whatever their type id
        words += types
        types = None
    return Embeddings(
        words=words,
        positions=positions,
        types=types,
        norm=bert.load_norm(config, weights, norm),
        word_lora=weights.load_lora([("embeddings.word_embeddings", len(words))], hidden_size),
        type_lora=type_lora,
    )


def load_attention(
    config: ModelConfig, weights: Weights, layer: str, names: Names, rotary: Rotary | None, *, bias: bool
) -> Attention:
    hidden_size, width = config.hidden_size, config.num_heads * config.head_dim
    projections = [f"{layer}.{name}" for name in names.qkv_proj]
    return Attention(
        qkv_proj=load_linear(weights, projections, 3 * width // len(projections), hidden_size, bias=bias),
        o_proj=load_linear(weights, f"{layer}.{names.o_proj}", hidden_size, width, bias=bias),
        num_heads=config.num_heads,
        num_kv_heads=config.num_heads,
        pattern=AttentionPattern(),
        rotary=rotary,
    )


def load_plain_feed_forward(config: ModelConfig, weights: Weights, name: str, *, bias: bool = True) -> FeedForward:
    hidden_size, intermediate_size = config.hidden_size, config.intermediate_size
    activation = config.activation("hidden_act")
    return FeedForward(
        load_linear(weights, f"{name}.fc1", intermediate_size, hidden_size, bias=bias, activation=activation),
        load_linear(weights, f"{name}.fc2", hidden_size, intermediate_size, bias=bias),
    )


def load_gated_feed_forward(
    config: ModelConfig,
    weights: Weights,
    *,
    gate_up_proj: Linear | tuple[str, str],
    down_proj: str,
    bias: bool = False,
    down_bias: bool = False,
) -> GatedFeedForward:
    """`gate_up_proj` is that linear, or the names of its two halves."""
    hidden_size, intermediate_size = config.hidden_size, config.intermediate_size
    if isinstance(gate_up_proj, tuple):
        gate_up_proj = load_linear(weights, gate_up_proj, intermediate_size, hidden_size, bias=bias)
    return GatedFeedForward(
        gate_up_proj=gate_up_proj,
        activation=config.activation("hidden_act"),
        down_proj=load_linear(weights, down_proj, hidden_size, intermediate_size, bias=down_bias),
        intermediate_size=intermediate_size,
    )


GTE_NAMES = Names(
    embedding_norm="embeddings.LayerNorm",
    layers="encoder.layer",
    qkv_proj=("attention.qkv_proj",),
    o_proj="attention.o_proj",
    attention_norm="attn_ln",
    feed_forward_norm="mlp_ln",
)
GTE_SEPARATE_NAMES = dataclasses.replace(
    GTE_NAMES, qkv_proj=("attention.q_proj", "attention.k_proj", "attention.v_proj")
)


def load_gte(config: ModelConfig, weights: Weights) -> Transformer:
    config.require("position_embedding_type", "rope")
    config.require("layer_norm_type", "layer_norm")
    config.require("logn_attention_scale", False)
    parameters = rope_parameters(config, 160_000.0 if is_native(weights) else 10_000.0)
    return load(
        config,
        weights,
        GTE_NAMES if config.get("pack_qkv", True) else GTE_SEPARATE_NAMES,
        build_rotary(config, parameters, config.head_dim, weights.device),
        lambda _, layer: load_gte_feed_forward(config, weights, f"{layer}.mlp"),
    )


def load_gte_feed_forward(config: ModelConfig, weights: Weights, name: str) -> GatedFeedForward:
    gate_up_proj: Linear | tuple[str, str] = (f"{name}.gate_proj", f"{name}.up_proj")
    if not is_native(weights):
        # The authors store what is activated below what it multiplies.
        intermediate_size = config.intermediate_size
        shape = 2 * intermediate_size, config.hidden_size
        gate_up_proj = load_linear(weights, f"{name}.up_gate_proj", *shape, bias=False, first_row=intermediate_size)
    down_proj = f"{name}.down_proj"
    return load_gated_feed_forward(config, weights, gate_up_proj=gate_up_proj, down_proj=down_proj, down_bias=True)


def load_gte_splade(checkpoint: Checkpoint, weights: Weights) -> Head:
    """The head of GteForMaskedLM and NewForMaskedLM."""
    return bert.load_splade(
        checkpoint,
        weights,
        dense="lm_head.dense",
        norm="lm_head.layer_norm" if is_native(weights) else "lm_head.norm",
        decoder="lm_head.decoder",
        bias="lm_head.decoder.bias",
    )


GTE_HEADS: bert.Heads = {**bert.make_classifiers(), ModelKind.SPARSE_EMBEDDER: load_gte_splade}

JINA_NAMES = Names(
    embedding_norm="emb_ln",
    layers="encoder.layers",
    qkv_proj=("mixer.Wqkv",),
    o_proj="mixer.out_proj",
    attention_norm="norm1",
    feed_forward_norm="norm2",
)


def load_jina(config: ModelConfig, weights: Weights) -> Transformer:
    config.require("position_embedding_type", "rotary", "absolute")
    is_rotary = config.get("position_embedding_type", "rotary") == "rotary"
    return load(
        config,
        weights,
        JINA_NAMES,
        load_jina_rotary(config, weights) if is_rotary else None,
        lambda _, layer: load_plain_feed_forward(config, weights, f"{layer}.mlp"),
        positions=None if is_rotary else bert.load_positions(config, weights, config.hidden_size),
    )


def load_jina_rotary(config: ModelConfig, weights: Weights) -> Rotary:
    """Jina's own code and transformers' class have different defaults."""
    is_transformers = config.get("model_type") == "jina_embeddings_v3"
    base = config.number("rotary_emb_base", 20_000.0 if is_transformers else 10_000.0)
    return build_rotary(config, rope_parameters(config, base), config.head_dim, weights.device)


JINA_HEADS = bert.make_classifiers(bert_variants.load_roberta_classification)
