"""Jina's BERT of embeddings v2 and rerankers v1, in checkpoints that bring code of their own: ALiBi in place of
positions, gated feed-forwards, and up to 8,192 tokens.

There are two kinds. The later one (German, Spanish, Chinese, code) normalizes queries and keys, adds the input of
attention a second time, and has the halves of its gated feed-forward in the opposite order.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from engine_svc.models.activations import Activation
from engine_svc.models.architectures import bert
from engine_svc.models.attention_pattern import AttentionPattern, alibi_bias
from engine_svc.models.linear import load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.norms import Norm, QueryKeyNorm
from engine_svc.models.transformer import (
    Attention,
    BranchNorms,
    GatedFeedForward,
    Layer,
    ResidualStream,
    Transformer,
)
from engine_svc.models.weights import Weights

# By feed_forward_type.
GATES = {"geglu": Activation.GELU, "reglu": Activation.RELU}
UNGATED = "original"


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoSumNorms(BranchNorms):
    """Normalizes the sum of a branch and its input, and then the sum of that and the input again."""

    second_sum: Norm

    def run(self, branch: Callable[[Any], Tensor], stream: ResidualStream, *, as_float8: bool = False) -> None:
        hidden = stream.hidden()
        BranchNorms.run(self, branch, stream, as_float8=as_float8)
        stream.add(hidden)
        stream.normalize(self.second_sum)


def load(config: ModelConfig, weights: Weights) -> Transformer:
    config.require("is_decoder", False)
    longest = config.positive("max_position_embeddings")
    pattern = AttentionPattern(bias=alibi_bias(config.num_heads, longest, weights.device))
    is_later = weights.has("encoder.layer.0.attention.self.layer_norm_q.weight")
    load_layer = load_later_layer if is_later else load_first_layer
    return Transformer(
        bert.load_embeddings(config, weights, has_positions=False),
        weights.load_each(lambda index: load_layer(config, weights, index, pattern), range(config.num_layers)),
    )


def load_first_layer(config: ModelConfig, weights: Weights, index: int, pattern: AttentionPattern) -> Layer:
    config.require("feed_forward_type", UNGATED, *GATES)
    if config.get("feed_forward_type", UNGATED) == UNGATED:
        return bert.load_layer(config, weights, bert.NAMES, index, pattern)
    name = bert.NAMES.layer.format(index=index)
    return Layer(
        attention=bert.load_attention(config, weights, bert.NAMES, name, pattern),
        attention_norms=bert.load_post_norm(config, weights, f"{name}.attention.output.LayerNorm"),
        feed_forward=load_gated_feed_forward(config, weights, f"{name}.mlp.gated_layers", f"{name}.mlp.wo"),
        feed_forward_norms=bert.load_post_norm(config, weights, f"{name}.mlp.layernorm"),
    )


def load_later_layer(config: ModelConfig, weights: Weights, index: int, pattern: AttentionPattern) -> Layer:
    config.require("feed_forward_type", *GATES)
    name = bert.NAMES.layer.format(index=index)
    up, down = f"{name}.mlp.up_gated_layer", f"{name}.mlp.down_layer"
    return Layer(
        attention=load_later_attention(config, weights, name, pattern),
        attention_norms=TwoSumNorms(
            sum=bert.load_norm(config, weights, f"{name}.attention.output.LayerNorm"),
            second_sum=bert.load_norm(config, weights, f"{name}.layer_norm_1"),
        ),
        feed_forward=load_gated_feed_forward(config, weights, up, down, is_up_first=True),
        feed_forward_norms=bert.load_post_norm(config, weights, f"{name}.layer_norm_2"),
    )


def load_later_attention(config: ModelConfig, weights: Weights, layer: str, pattern: AttentionPattern) -> Attention:
    attention = bert.load_attention(config, weights, bert.NAMES, layer, pattern)
    norms = [f"{layer}.attention.self.layer_norm_{part}" for part in ("q", "k")]
    weight, bias = (
        weights.load_joined([(f"{norm}.{kind}", [config.hidden_size]) for norm in norms]).view(len(norms), -1)
        for kind in ("weight", "bias")
    )
    qk_norm = QueryKeyNorm(weight, bias, config.number("layer_norm_eps", 1e-12))
    return dataclasses.replace(attention, qk_norm=qk_norm)


def load_gated_feed_forward(
    config: ModelConfig, weights: Weights, gate_up_proj: str, down_proj: str, *, is_up_first: bool = False
) -> GatedFeedForward:
    hidden_size, intermediate_size = config.hidden_size, config.intermediate_size
    first_row = intermediate_size if is_up_first else 0
    return GatedFeedForward(
        gate_up_proj=load_linear(
            weights, gate_up_proj, 2 * intermediate_size, hidden_size, bias=False, first_row=first_row
        ),
        activation=GATES[config.get("feed_forward_type")],
        down_proj=load_linear(weights, down_proj, hidden_size, intermediate_size),
        intermediate_size=intermediate_size,
    )
