"""ALBERT: BERT whose layers are one, run over and over, or a few, and whose embeddings are narrower than they."""

import dataclasses
from functools import partial

from engine_svc.models.architectures import bert
from engine_svc.models.linear import load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.transformer import Layer, Transformer
from engine_svc.models.weights import Weights

PREFIX = "albert."
UNUSED = ("pooler.", "predictions.", "sop_classifier.")

NAMES = bert.LayerNames(
    query_key_value=("attention.query", "attention.key", "attention.value"),
    attention_output="attention.dense",
    attention_norm="attention.LayerNorm",
    up="ffn",
    down="ffn_output",
    feed_forward_norm="full_layer_layer_norm",
)


def load(config: ModelConfig, weights: Weights) -> Transformer:
    """Raises CheckpointError."""
    config.require("position_embedding_type", "absolute")
    config = dataclasses.replace(config, values={**config.values, "hidden_act": config.get("hidden_act", "gelu_new")})
    width, hidden = config.positive("embedding_size", default=128), config.positive("hidden_size")
    projection = load_linear(weights.quantized(None), "encoder.embedding_hidden_mapping_in", hidden, width)
    embeddings = dataclasses.replace(bert.load_embeddings(config, weights, width=width), projection=projection)
    return Transformer(embeddings, load_layers(config, weights))


def load_layers(config: ModelConfig, weights: Weights) -> list[Layer]:
    """As they run: the layers of each group follow each other, and the groups share the depth evenly."""
    depth, count = config.positive("num_hidden_layers"), config.positive("num_hidden_groups", default=1)
    groups = [load_group(config, weights, index) for index in range(count)]
    return [layer for step in range(depth) for layer in groups[int(step / (depth / count))]]


def load_group(config: ModelConfig, weights: Weights, group: int) -> list[Layer]:
    names = dataclasses.replace(NAMES, layer=f"encoder.albert_layer_groups.{group}.albert_layers.{{index}}")
    count = config.positive("inner_group_num", default=1)
    return [bert.load_layer(config, weights, names, index, bert.ALL) for index in range(count)]


load_sequence_classification = partial(bert.load_sequence_classification, dense="pooler")

HEADS = bert.classifiers(load_sequence_classification)
