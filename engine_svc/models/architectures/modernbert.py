"""ModernBERT (arXiv 2412.13663): gte-modernbert, modernbert-embed, ModernBERT itself, mmBERT, and what is made of them.

Most layers see a window of the text, every third one all of it. Each type has its own base of rotary positions.
"""

from collections.abc import Sequence

import torch

from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.heads.classification import (
    SequenceClassificationHead,
    TokenClassificationHead,
    load_float32_linear,
)
from engine_svc.models.heads.head import Head
from engine_svc.models.heads.splade import SpladeHead, load_vocabulary_decoder
from engine_svc.models.heads.vector_modules import Stage
from engine_svc.models.linear import load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.norms import LayerNorm, load_layer_norm
from engine_svc.models.rotary import (
    FULL_ATTENTION,
    SLIDING_ATTENTION,
    RopeParameters,
    Rotary,
    build_rotary,
    rope_parameters_by_type,
)
from engine_svc.models.transformer import Attention, BranchNorms, Embeddings, GatedFeedForward, Layer, Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.sentence_modules import Pooling, Splade

WORDS = "embeddings.tok_embeddings.weight"

# transformers 4's names of the bases, and the defaults.
BASES = {FULL_ATTENTION: ("global_rope_theta", 160_000.0), SLIDING_ATTENTION: ("local_rope_theta", 10_000.0)}

POOLINGS = {"cls": Pooling.CLS, "mean": Pooling.MEAN}


def load(config: ModelConfig, weights: Weights) -> Transformer:
    rotaries = {
        layer_type: build_rotary(config, read_rope_parameters(config, layer_type), config.head_dim, weights.device)
        for layer_type in BASES
    }
    return Transformer(
        embeddings=Embeddings(
            words=weights.load(WORDS, [config.vocab_size, config.hidden_size]),
            norm=load_norm(config, weights, "embeddings.norm"),
        ),
        layers=weights.load_each(
            lambda layer: load_layer(config, weights, *layer, rotaries[layer[1]]), enumerate(read_layer_types(config))
        ),
        norm=load_norm(config, weights, "final_norm"),
    )


def read_layer_types(config: ModelConfig) -> Sequence[str]:
    """transformers 4 had a rule in place of a list."""
    layers = config.num_layers
    every = config.positive("global_attn_every_n_layers", default=3)
    types = config.get("layer_types") or [
        SLIDING_ATTENTION if index % every else FULL_ATTENTION for index in range(layers)
    ]
    if len(types) != layers or not set(types) <= BASES.keys():
        config.refuse(f"layer_types {types} is not supported")
    return list(types)


def read_rope_parameters(config: ModelConfig, layer_type: str) -> RopeParameters:
    """transformers 5 states them by layer type, transformers 4 had a base for each type."""
    name, base = BASES[layer_type]
    stated = rope_parameters_by_type(config, layer_type) or config.get("rope_scaling") or {}
    return {"rope_theta": config.get(name, base), **stated}


def load_layer(config: ModelConfig, weights: Weights, index: int, layer_type: str, rotary: Rotary) -> Layer:
    hidden_size, intermediate_size = config.hidden_size, config.intermediate_size
    attention_bias, mlp_bias = bool(config.get("attention_bias")), bool(config.get("mlp_bias"))
    name = f"layers.{index}"
    return Layer(
        attention=Attention(
            qkv_proj=load_linear(weights, f"{name}.attn.Wqkv", 3 * hidden_size, hidden_size, bias=attention_bias),
            o_proj=load_linear(weights, f"{name}.attn.Wo", hidden_size, hidden_size, bias=attention_bias),
            num_heads=config.num_heads,
            num_kv_heads=config.num_heads,
            pattern=make_pattern(config, layer_type),
            rotary=rotary,
        ),
        # The norm of the embeddings is the input norm of the first layer.
        attention_norms=BranchNorms(load_norm(config, weights, f"{name}.attn_norm") if index else None),
        feed_forward=GatedFeedForward(
            gate_up_proj=load_linear(weights, f"{name}.mlp.Wi", 2 * intermediate_size, hidden_size, bias=mlp_bias),
            activation=config.activation("hidden_activation"),
            down_proj=load_linear(weights, f"{name}.mlp.Wo", hidden_size, intermediate_size, bias=mlp_bias),
            intermediate_size=intermediate_size,
        ),
        feed_forward_norms=BranchNorms(load_norm(config, weights, f"{name}.mlp_norm")),
    )


def make_pattern(config: ModelConfig, layer_type: str) -> AttentionPattern:
    if layer_type == FULL_ATTENTION:
        return AttentionPattern()
    # The window is that of both sides together, without the token itself: 128 are 64 before it and 64 after it.
    side = config.positive("local_attention", default=128) // 2
    return AttentionPattern(window_left=side, window_right=side)


def load_norm(config: ModelConfig, weights: Weights, name: str, dtype: torch.dtype | None = None) -> LayerNorm:
    hidden_size, epsilon = config.hidden_size, config.number("norm_eps", 1e-5)
    return load_layer_norm(weights, name, hidden_size, epsilon, bias=bool(config.get("norm_bias")), dtype=dtype)


def load_sequence_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    """The head of ModernBertForSequenceClassification."""
    config = ModelConfig.of(checkpoint)
    config.require("classifier_pooling", *POOLINGS)
    pooling = POOLINGS[config.get("classifier_pooling", "cls")]
    return SequenceClassificationHead(pooling, load_classification_stages(checkpoint, weights))


def load_token_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    """The head of ModernBertForTokenClassification."""
    return TokenClassificationHead(load_classification_stages(checkpoint, weights))


def load_classification_stages(checkpoint: Checkpoint, weights: Weights) -> Sequence[Stage]:
    config = ModelConfig.of(checkpoint)
    hidden_size = config.hidden_size
    bias, activation = bool(config.get("classifier_bias")), config.activation("classifier_activation")
    return [
        load_float32_linear(weights, "head.dense", hidden_size, hidden_size, bias=bias, activation=activation),
        load_norm(config, weights, "head.norm", torch.float32),
        load_float32_linear(weights, "classifier", len(checkpoint.labels), hidden_size),
    ]


def load_splade(checkpoint: Checkpoint, weights: Weights) -> Head:
    """The head of ModernBertForMaskedLM."""
    config = ModelConfig.of(checkpoint)
    config.require("decoder_bias", True)
    hidden_size = config.hidden_size
    bias, activation = bool(config.get("classifier_bias")), config.activation("classifier_activation")
    return SpladeHead(
        transform=load_linear(weights, "head.dense", hidden_size, hidden_size, bias=bias, activation=activation),
        norm=load_norm(config, weights, "head.norm"),
        decoder=load_vocabulary_decoder(config, weights, "decoder", "decoder.bias", WORDS),
        vocabulary_size=config.vocab_size,
        splade=checkpoint.splade or Splade(),
    )


HEADS = {
    ModelKind.CLASSIFIER: load_sequence_classification,
    ModelKind.RERANKER: load_sequence_classification,
    ModelKind.TOKEN_CLASSIFIER: load_token_classification,
    ModelKind.SPARSE_EMBEDDER: load_splade,
}
