"""DeBERTa v2 and v3, mDeBERTa: BERT with disentangled attention, and with the distances of tokens in place of their
positions."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.architectures import bert
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.disentangled_attention import DisentangledAttention
from engine_svc.models.heads.head import Head
from engine_svc.models.linear import load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.transformer import Layer, Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint

PREFIX = "deberta."
UNUSED = ("pooler.", "cls.", "lm_predictions.", "mask_predictions.", "embeddings.position_embeddings.")

PROJECTIONS = ("query_proj", "key_proj", "value_proj")


def load(config: ModelConfig, weights: Weights) -> Transformer:
    """Raises CheckpointError."""
    if not config.get("relative_attention", False):  # as it is where the config does not say
        config.refuse("relative_attention False is not supported")
    config.require("conv_kernel_size", 0)
    config.require("embedding_size", config.positive("hidden_size"))
    embeddings = bert.load_embeddings(
        config,
        weights,
        has_positions=config.get("position_biased_input", True),
        has_types=config.get("type_vocab_size", 0) > 0,
    )
    distances = load_distances(config, weights)
    places = place_of_distance(config).to(weights.device)
    count = config.positive("num_hidden_layers")
    return Transformer(embeddings, [load_layer(config, weights, index, distances, places) for index in range(count)])


def load_distances(config: ModelConfig, weights: Weights) -> Tensor:
    """float32 [places, hidden]"""
    places, hidden = 2 * reach_of(config), config.positive("hidden_size")
    table = weights.take("encoder.rel_embeddings.weight", [places, hidden], torch.float32)
    if "layer_norm" not in str(config.get("norm_rel_ebd", "none")).lower():
        return table
    weight, bias = (weights.take(f"encoder.LayerNorm.{part}", [hidden], torch.float32) for part in ("weight", "bias"))
    return functional.layer_norm(table, [hidden], weight, bias, bert.epsilon_of(config))


def reach_of(config: ModelConfig) -> int:
    """How many places there are to either side."""
    buckets = config.get("position_buckets", -1)
    return buckets if buckets > 0 else farthest_of(config)


def farthest_of(config: ModelConfig) -> int:
    stated = config.get("max_relative_positions", -1)
    return stated if stated > 0 else config.positive("max_position_embeddings")


def place_of_distance(config: ModelConfig) -> Tensor:
    """Places count up as keys come before the query ever farther. Near ones have a place for each distance, farther
    ones share them in steps that grow with the distance, where the config has buckets."""
    longest, reach = config.positive("max_position_embeddings"), reach_of(config)
    before = -torch.arange(1 - longest, longest)
    if config.get("position_buckets", -1) > 0:
        near = reach // 2
        steps = before.abs().clamp(min=near)
        growth = torch.log(steps / near) / torch.log(torch.tensor((farthest_of(config) - 1) / near))
        far = torch.ceil(growth * (near - 1)).long() + near
        before = torch.where(before.abs() <= near, before, far * before.sign())
    return (before + reach).clamp(0, 2 * reach - 1)


def load_layer(config: ModelConfig, weights: Weights, index: int, distances: Tensor, places: Tensor) -> Layer:
    name = bert.NAMES.layer.format(index=index)
    return Layer(
        attention=load_attention(config, weights, f"{name}.attention", distances, places),
        attention_norms=bert.load_norm_of_sum(config, weights, f"{name}.attention.output.LayerNorm"),
        feed_forward=bert.load_feed_forward(config, weights, f"{name}.intermediate.dense", f"{name}.output.dense"),
        feed_forward_norms=bert.load_norm_of_sum(config, weights, f"{name}.output.LayerNorm"),
    )


def load_attention(
    config: ModelConfig, weights: Weights, name: str, distances: Tensor, places: Tensor
) -> DisentangledAttention:
    hidden, heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    comparisons = comparisons_of(config)
    by_query = load_seen(config, weights, f"{name}.self", "key", distances) if "c2p" in comparisons else None
    by_key = load_seen(config, weights, f"{name}.self", "query", distances) if "p2c" in comparisons else None
    return DisentangledAttention(
        query_key_value=load_linear(weights, [f"{name}.self.{part}" for part in PROJECTIONS], hidden, hidden),
        output=load_linear(weights, f"{name}.output.dense", hidden, hidden),
        heads=heads,
        key_heads=heads,
        pattern=AttentionPattern(),
        scale=1 / math.sqrt(config.head_dim(hidden, heads) * (1 + len(comparisons))),
        place_keys=by_query,
        place_queries=by_key,
        places=len(distances),
        place_of_distance=places,
    )


def comparisons_of(config: ModelConfig) -> set[str]:
    """Of content with position (c2p) and the other way around."""
    stated = config.get("pos_att_type", [])
    return {kind.strip() for kind in (stated.lower().split("|") if isinstance(stated, str) else stated)} & {
        "c2p",
        "p2c",
    }


def load_seen(config: ModelConfig, weights: Weights, name: str, role: str, distances: Tensor) -> Tensor:
    """The distances as keys or queries, [heads, head_dim, places]: by the projection of tokens if they share it."""
    hidden, heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    projection = f"{name}.{role}_proj" if config.get("share_att_key", False) else f"{name}.pos_{role}_proj"
    weight = weights.take(f"{projection}.weight", [hidden, hidden], torch.float32)
    seen = functional.linear(distances, weight, weights.take(f"{projection}.bias", [hidden], torch.float32))
    return seen.view(len(distances), heads, -1).permute(1, 2, 0).to(weights.dtype).contiguous()


def load_sequence_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    activation = ModelConfig.of(checkpoint).activation("pooler_hidden_act")
    return bert.load_sequence_classification(checkpoint, weights, activation=activation)


HEADS = bert.classifiers(load_sequence_classification)
