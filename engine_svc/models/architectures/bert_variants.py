"""Architectures that are BERT with small changes: RoBERTa, DistilBERT, ELECTRA, ALBERT and MPNet."""

import dataclasses
import math
from functools import partial

import torch
from torch import Tensor

from engine_svc.models.activations import Activation
from engine_svc.models.architectures import bert
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.linear import load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.transformer import Embeddings, Layer, Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint import ModelKind
from heddle.checkpoint.checkpoint import get_max_positions

# RoBERTa, XLM-RoBERTa and CamemBERT: BERT's transformer with other heads. Positions begin after the padding id.

load_roberta_classification = partial(
    bert.load_sequence_classification, dense="classifier.dense", output="classifier.out_proj"
)

ROBERTA_HEADS: bert.Heads = {
    **bert.make_classifiers(load_roberta_classification),
    ModelKind.SPARSE_EMBEDDER: partial(
        bert.load_splade,
        dense="lm_head.dense",
        norm="lm_head.layer_norm",
        decoder="lm_head.decoder",
        bias="lm_head.bias",
        activation=Activation.GELU,
    ),
}

# DistilBERT: half of BERT's layers, no token types, no pooler, and its own names for everything else.

DISTILBERT_NAMES = bert.LayerNames(
    layer="transformer.layer.{index}",
    qkv_proj=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    o_proj="attention.out_lin",
    attention_norm="sa_layer_norm",
    up_proj="ffn.lin1",
    down_proj="ffn.lin2",
    feed_forward_norm="output_layer_norm",
)

DISTILBERT_HEADS: bert.Heads = {
    **bert.make_classifiers(
        partial(bert.load_sequence_classification, dense="pre_classifier", activation=Activation.RELU)
    ),
    ModelKind.SPARSE_EMBEDDER: partial(
        bert.load_splade,
        dense="vocab_transform",
        norm="vocab_layer_norm",
        decoder="vocab_projector",
        bias="vocab_projector.bias",
    ),
}


def load_distilbert(config: ModelConfig, weights: Weights) -> Transformer:
    """Sinusoidal positions are stored like learned ones."""
    embeddings = bert.load_embeddings(config, weights, has_types=False)
    return Transformer(embeddings, bert.load_layers(config, weights, DISTILBERT_NAMES))


# ELECTRA: embeddings may be narrower than layers. Its discriminator is what people fine-tune.

ELECTRA_HEADS = bert.make_classifiers(partial(load_roberta_classification, activation=Activation.GELU))


def load_electra(config: ModelConfig, weights: Weights) -> Transformer:
    config.require("position_embedding_type", "absolute")
    config.require("is_decoder", False)
    is_projected = config.positive("embedding_size", default=128) != config.hidden_size
    projection = "embeddings_project" if is_projected else None
    embeddings = load_factorized_embeddings(config, weights, projection)
    return Transformer(embeddings, bert.load_layers(config, weights))


def load_factorized_embeddings(config: ModelConfig, weights: Weights, projection: str | None) -> Embeddings:
    """Embeddings with a size of their own, and the linear of this name that projects them to the hidden size."""
    size = config.positive("embedding_size", default=128)
    embeddings = bert.load_embeddings(config, weights, size=size)
    if projection is None:
        return embeddings
    linear = load_linear(weights.with_quantization(None), projection, config.hidden_size, size)
    return dataclasses.replace(embeddings, projection=linear)


# ALBERT: narrow embeddings, and all layers share the weights of one, or of a few.

ALBERT_NAMES = bert.LayerNames(
    qkv_proj=("attention.query", "attention.key", "attention.value"),
    o_proj="attention.dense",
    attention_norm="attention.LayerNorm",
    up_proj="ffn",
    down_proj="ffn_output",
    feed_forward_norm="full_layer_layer_norm",
)

ALBERT_HEADS = bert.make_classifiers(partial(bert.load_sequence_classification, dense="pooler"))


def load_albert(config: ModelConfig, weights: Weights) -> Transformer:
    config.require("position_embedding_type", "absolute")
    config = dataclasses.replace(config, values={**config.values, "hidden_act": config.get("hidden_act", "gelu_new")})
    embeddings = load_factorized_embeddings(config, weights, "encoder.embedding_hidden_mapping_in")
    return Transformer(embeddings, load_albert_layers(config, weights))


def load_albert_layers(config: ModelConfig, weights: Weights) -> list[Layer]:
    """In the order in which they run: the layers of a group follow each other, and the groups share the depth
    evenly."""
    depth, count = config.num_layers, config.positive("num_hidden_groups", default=1)
    groups = [load_albert_group(config, weights, index) for index in range(count)]
    return [layer for step in range(depth) for layer in groups[int(step / (depth / count))]]


def load_albert_group(config: ModelConfig, weights: Weights, group: int) -> list[Layer]:
    names = dataclasses.replace(ALBERT_NAMES, layer=f"encoder.albert_layer_groups.{group}.albert_layers.{{index}}")
    count = config.positive("inner_group_num", default=1)
    return [bert.load_layer(config, weights, names, index, bert.FULL) for index in range(count)]


# MPNet: RoBERTa with relative positions too, in buckets that widen with the distance.

MPNET_NAMES = bert.LayerNames(
    qkv_proj=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    o_proj="attention.attn.o",
    attention_norm="attention.LayerNorm",
)

MPNET_BUCKETS = 32  # half of them for keys before the query; transformers has no other number, whatever the config says
MPNET_MAX_DISTANCE = 128  # distances from here on share the last bucket


def load_mpnet(config: ModelConfig, weights: Weights) -> Transformer:
    config.require("relative_attention_num_buckets", MPNET_BUCKETS)
    embeddings = bert.load_embeddings(config, weights, has_types=False)
    pattern = AttentionPattern(bias=load_mpnet_bias(config, weights))
    return Transformer(embeddings, bert.load_layers(config, weights, MPNET_NAMES, pattern))


def load_mpnet_bias(config: ModelConfig, weights: Weights) -> Tensor:
    """All layers share it."""
    shape = [MPNET_BUCKETS, config.num_heads]
    table = weights.load("encoder.relative_attention_bias.weight", shape, torch.float32)
    longest = get_max_positions(config.values) or 1
    distances = torch.arange(1 - longest, longest)
    return table[find_mpnet_bucket(distances).to(table.device)].T.contiguous()


def find_mpnet_bucket(distances: Tensor) -> Tensor:
    """T5's buckets for attention in both directions: int64, from int64 distances of a key from its query."""
    sides = MPNET_BUCKETS // 2
    near = sides // 2  # so many distances have a bucket each
    steps = distances.abs()
    widening = (steps.float() / near).log() / math.log(MPNET_MAX_DISTANCE / near) * (sides - near)
    far = near + widening.clamp(min=0).long()
    return torch.where(steps < near, steps, far.clamp(max=sides - 1)) + torch.where(distances > 0, sides, 0)
