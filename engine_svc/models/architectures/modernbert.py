"""ModernBERT (arXiv 2412.13663): gte-modernbert, modernbert-embed, ModernBERT itself, mmBERT, and what is made of them.

Most layers see a window of the text, every third all of it, each kind with its own base of rotary positions.
"""

from collections.abc import Sequence

import torch

from engine_svc.models.architectures.layer_types import FULL, SLIDING, stated_rope
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.heads.classification import (
    SequenceClassificationHead,
    TokenClassificationHead,
    float32_linear,
)
from engine_svc.models.heads.head import Head
from engine_svc.models.heads.splade import SpladeHead, load_vocabulary_decoder
from engine_svc.models.heads.vector_modules import Stage
from engine_svc.models.linear import load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.norms import LayerNorm, load_layer_norm
from engine_svc.models.rope_scaling import Parameters, rotary_of
from engine_svc.models.rotary import Rotary
from engine_svc.models.transformer import Attention, Embeddings, GatedFeedForward, Layer, Norms, Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.sentence_modules import Pooling, Splade

PREFIX = "model."
WORDS = "embeddings.tok_embeddings.weight"

# Where the config does not state the bases.
BASES = {FULL: ("global_rope_theta", 160_000.0), SLIDING: ("local_rope_theta", 10_000.0)}

POOLINGS = {"cls": Pooling.CLS, "mean": Pooling.MEAN}


def load(config: ModelConfig, weights: Weights) -> Transformer:
    """Raises CheckpointError for a tensor that is missing or not of the config's shape, and for what ModernBERT is
    not."""
    hidden = config.positive("hidden_size")
    head_dim = config.head_dim(hidden, config.positive("num_attention_heads"))
    rotaries = {
        kind: rotary_of(config, rope_parameters_of(config, kind), head_dim, weights.device) for kind in (FULL, SLIDING)
    }
    return Transformer(
        embeddings=Embeddings(
            words=weights.take(WORDS, [config.positive("vocab_size"), hidden]),
            norm=load_norm(config, weights, "embeddings.norm"),
        ),
        layers=[
            load_layer(config, weights, index, kind, rotaries[kind]) for index, kind in enumerate(layer_types(config))
        ],
        norm=load_norm(config, weights, "final_norm"),
    )


def layer_types(config: ModelConfig) -> Sequence[str]:
    """Of every layer; transformers 4 had it as a rule."""
    layers = config.positive("num_hidden_layers")
    every = config.positive("global_attn_every_n_layers", default=3)
    kinds = config.get("layer_types") or [SLIDING if index % every else FULL for index in range(layers)]
    if len(kinds) != layers or not set(kinds) <= BASES.keys():
        config.refuse(f"layer_types {kinds} is not supported")
    return list(kinds)


def rope_parameters_of(config: ModelConfig, kind: str) -> Parameters:
    """Of one kind of layer. transformers 5 states them by kind, transformers 4 had a base for each."""
    name, base = BASES[kind]
    stated = stated_rope(config, kind) or config.get("rope_scaling") or {}
    return {"rope_theta": config.get(name, base), **stated}


def load_layer(config: ModelConfig, weights: Weights, index: int, kind: str, rotary: Rotary) -> Layer:
    hidden, intermediate = config.positive("hidden_size"), config.positive("intermediate_size")
    heads = config.positive("num_attention_heads")
    attention_bias, mlp_bias = bool(config.get("attention_bias")), bool(config.get("mlp_bias"))
    name = f"layers.{index}"
    return Layer(
        attention=Attention(
            query_key_value=load_linear(weights, f"{name}.attn.Wqkv", 3 * hidden, hidden, bias=attention_bias),
            output=load_linear(weights, f"{name}.attn.Wo", hidden, hidden, bias=attention_bias),
            heads=heads,
            key_heads=heads,
            pattern=pattern_of(config, kind),
            rotary=rotary,
        ),
        # The norm of the embeddings is the first layer's.
        attention_norms=Norms(before=load_norm(config, weights, f"{name}.attn_norm") if index else None),
        feed_forward=GatedFeedForward(
            gate_up=load_linear(weights, f"{name}.mlp.Wi", 2 * intermediate, hidden, bias=mlp_bias),
            activation=config.activation("hidden_activation"),
            down=load_linear(weights, f"{name}.mlp.Wo", hidden, intermediate, bias=mlp_bias),
            intermediate=intermediate,
        ),
        feed_forward_norms=Norms(before=load_norm(config, weights, f"{name}.mlp_norm")),
    )


def pattern_of(config: ModelConfig, kind: str) -> AttentionPattern:
    if kind == FULL:
        return AttentionPattern()
    # The window is on both sides together, beside the token itself: 128 are 64 before and 64 after it.
    reach = config.positive("local_attention", default=128) // 2
    return AttentionPattern(behind=reach, ahead=reach)


def load_norm(config: ModelConfig, weights: Weights, name: str, dtype: torch.dtype | None = None) -> LayerNorm:
    hidden, epsilon = config.positive("hidden_size"), config.number("norm_eps", 1e-5)
    return load_layer_norm(weights, name, hidden, epsilon, bias=bool(config.get("norm_bias")), dtype=dtype)


def load_sequence_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    """Of ModernBertForSequenceClassification. Raises CheckpointError; so do the others here."""
    config = ModelConfig.of(checkpoint)
    config.require("classifier_pooling", *POOLINGS)
    pooling = POOLINGS[config.get("classifier_pooling", "cls")]
    return SequenceClassificationHead(pooling, classification_stages(checkpoint, weights))


def load_token_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    """Of ModernBertForTokenClassification."""
    return TokenClassificationHead(classification_stages(checkpoint, weights))


def classification_stages(checkpoint: Checkpoint, weights: Weights) -> Sequence[Stage]:
    config = ModelConfig.of(checkpoint)
    hidden = config.positive("hidden_size")
    bias, activation = bool(config.get("classifier_bias")), config.activation("classifier_activation")
    return [
        float32_linear(weights, "head.dense", hidden, hidden, bias=bias, activation=activation),
        load_norm(config, weights, "head.norm", torch.float32),
        float32_linear(weights, "classifier", len(checkpoint.labels), hidden),
    ]


def load_splade(checkpoint: Checkpoint, weights: Weights) -> Head:
    """Of ModernBertForMaskedLM."""
    config = ModelConfig.of(checkpoint)
    config.require("decoder_bias", True)
    hidden = config.positive("hidden_size")
    bias, activation = bool(config.get("classifier_bias")), config.activation("classifier_activation")
    return SpladeHead(
        transform=load_linear(weights, "head.dense", hidden, hidden, bias=bias, activation=activation),
        norm=load_norm(config, weights, "head.norm"),
        decoder=load_vocabulary_decoder(config, weights, "decoder", "decoder.bias", WORDS),
        vocabulary_size=config.positive("vocab_size"),
        splade=checkpoint.splade or Splade(),
    )


HEADS = {
    ModelKind.CLASSIFIER: load_sequence_classification,
    ModelKind.RERANKER: load_sequence_classification,
    ModelKind.TOKEN_CLASSIFIER: load_token_classification,
    ModelKind.SPARSE_EMBEDDER: load_splade,
}
