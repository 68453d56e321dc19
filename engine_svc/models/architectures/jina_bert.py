"""Jina's BERT of its embeddings v2 and rerankers v1, in checkpoints that bring code of their own: ALiBi in place of
positions, gated feed-forwards, and up to 8,192 tokens.

Of two kinds. The later one (German, Spanish, Chinese, code) normalises queries and keys, adds what attention was given
a second time, and has the halves of its gated feed-forward the other way around.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine_svc.models.activations import Activation
from engine_svc.models.alibi import alibi_bias
from engine_svc.models.architectures import bert
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.linear import load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.norms import LayerNorm, Norm, QueryKeyNorm, load_layer_norm
from engine_svc.models.residual_stream import ResidualStream
from engine_svc.models.transformer import Attention, GatedFeedForward, Layer, Norms, Transformer
from engine_svc.models.weights import Weights

# By feed_forward_type.
GATES = {"geglu": Activation.GELU, "reglu": Activation.RELU}
UNGATED = "original"


@dataclass(frozen=True, slots=True, kw_only=True)
class NormsOfTwoSums(Norms):
    """The sum of a branch and what it was given is normalised, and so is the sum of that and what it was given."""

    of_second_sum: Norm

    def around(self, branch: Callable[[Any], Tensor], stream: ResidualStream, *, as_float8: bool = False) -> None:
        hidden = stream.hidden()
        Norms.around(self, branch, stream, as_float8=as_float8)
        stream.add(hidden)
        stream.normalize(self.of_second_sum)


def load(config: ModelConfig, weights: Weights) -> Transformer:
    """Raises CheckpointError."""
    config.require("is_decoder", False)
    heads, longest = config.positive("num_attention_heads"), config.positive("max_position_embeddings")
    pattern = AttentionPattern(bias=alibi_bias(heads, longest, weights.device))
    is_later = weights.has("encoder.layer.0.attention.self.layer_norm_q.weight")
    load_layer = load_later_layer if is_later else load_first_layer
    return Transformer(
        bert.load_embeddings(config, weights, has_positions=False),
        [load_layer(config, weights, index, pattern) for index in range(config.positive("num_hidden_layers"))],
    )


def load_first_layer(config: ModelConfig, weights: Weights, index: int, pattern: AttentionPattern) -> Layer:
    config.require("feed_forward_type", UNGATED, *GATES)
    if config.get("feed_forward_type", UNGATED) == UNGATED:
        return bert.load_layer(config, weights, bert.NAMES, index, pattern)
    name = bert.NAMES.layer.format(index=index)
    return Layer(
        attention=bert.load_attention(config, weights, bert.NAMES, name, pattern),
        attention_norms=bert.load_norm_of_sum(config, weights, f"{name}.attention.output.LayerNorm"),
        feed_forward=load_gated_feed_forward(config, weights, f"{name}.mlp.gated_layers", f"{name}.mlp.wo"),
        feed_forward_norms=bert.load_norm_of_sum(config, weights, f"{name}.mlp.layernorm"),
    )


def load_later_layer(config: ModelConfig, weights: Weights, index: int, pattern: AttentionPattern) -> Layer:
    config.require("feed_forward_type", *GATES)
    name = bert.NAMES.layer.format(index=index)
    up, down = f"{name}.mlp.up_gated_layer", f"{name}.mlp.down_layer"
    return Layer(
        attention=load_later_attention(config, weights, name, pattern),
        attention_norms=NormsOfTwoSums(
            of_sum=load_norm(config, weights, f"{name}.attention.output.LayerNorm"),
            of_second_sum=load_norm(config, weights, f"{name}.layer_norm_1"),
        ),
        feed_forward=load_gated_feed_forward(config, weights, up, down, is_up_first=True),
        feed_forward_norms=bert.load_norm_of_sum(config, weights, f"{name}.layer_norm_2"),
    )


def load_later_attention(config: ModelConfig, weights: Weights, layer: str, pattern: AttentionPattern) -> Attention:
    attention = bert.load_attention(config, weights, bert.NAMES, layer, pattern)
    norms = [f"{layer}.attention.self.layer_norm_{part}" for part in ("q", "k")]
    hidden = config.positive("hidden_size")
    head_norm = QueryKeyNorm(
        torch.stack([weights.take(f"{norm}.weight", [hidden]) for norm in norms]),
        torch.stack([weights.take(f"{norm}.bias", [hidden]) for norm in norms]),
        bert.epsilon_of(config),
    )
    return dataclasses.replace(attention, head_norm=head_norm)


def load_gated_feed_forward(
    config: ModelConfig, weights: Weights, gate_up: str, down: str, *, is_up_first: bool = False
) -> GatedFeedForward:
    hidden, intermediate = config.positive("hidden_size"), config.positive("intermediate_size")
    first_row = intermediate if is_up_first else 0
    return GatedFeedForward(
        gate_up=load_linear(weights, gate_up, 2 * intermediate, hidden, bias=False, first_row=first_row),
        activation=GATES[config.get("feed_forward_type")],
        down=load_linear(weights, down, hidden, intermediate),
        intermediate=intermediate,
    )


def load_norm(config: ModelConfig, weights: Weights, name: str) -> LayerNorm:
    return load_layer_norm(weights, name, config.positive("hidden_size"), bert.epsilon_of(config))
