"""BERT with rotary positions, which GTE, Nomic-BERT and Jina v3 are: each with names of its own for the same tensors,
and a feed-forward of its own.

All three exist as their authors laid them out, for code of their own, and as transformers' classes have them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from engine_svc.models.architectures.bert import epsilon_of
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.linear import Linear, load_linear
from engine_svc.models.low_rank import NO_CHANGES
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.norms import load_layer_norm
from engine_svc.models.rotary import Rotary
from engine_svc.models.transformer import (
    Attention,
    Embeddings,
    FeedForward,
    GatedFeedForward,
    Layer,
    Norms,
    Transformer,
)
from engine_svc.models.weights import Weights


@dataclass(frozen=True, slots=True)
class Names:
    """Of tensors; those of a layer are below `layers`.<index>."""

    embedding_norm: str
    layers: str
    query_key_value: tuple[str, ...]  # one for all, or one each
    attention_output: str
    attention_norm: str
    feed_forward_norm: str


NATIVE = Names(
    embedding_norm="embeddings.LayerNorm",
    layers="layers",
    query_key_value=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    attention_output="self_attn.o_proj",
    attention_norm="post_attention_layernorm",
    feed_forward_norm="post_mlp_layernorm",
)

# Of the layer with this index, whose tensors have this name.
LoadFeedForward = Callable[[int, str], Callable[[Tensor], Tensor]]


def is_native(weights: Weights) -> bool:
    """Whether tensors have the names of transformers' classes."""
    return weights.has(f"{NATIVE.layers}.0.{NATIVE.attention_output}.weight")


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
    """`names` are the authors'. Raises CheckpointError for a tensor that is missing or not of the config's shape."""
    if is_native(weights):
        names = NATIVE
    hidden = config.positive("hidden_size")

    def load_layer(index: int) -> Layer:
        name = f"{names.layers}.{index}"
        return Layer(
            attention=load_attention(config, weights, name, names, rotary, bias=attention_bias),
            attention_norms=Norms(
                of_sum=load_layer_norm(weights, f"{name}.{names.attention_norm}", hidden, epsilon_of(config))
            ),
            feed_forward=load_feed_forward(index, name),
            feed_forward_norms=Norms(
                of_sum=load_layer_norm(weights, f"{name}.{names.feed_forward_norm}", hidden, epsilon_of(config))
            ),
        )

    return Transformer(
        embeddings=load_embeddings(config, weights, names.embedding_norm, positions),
        layers=[load_layer(index) for index in range(config.positive("num_hidden_layers"))],
    )


def load_embeddings(config: ModelConfig, weights: Weights, norm: str, positions: Tensor | None) -> Embeddings:
    hidden = config.positive("hidden_size")
    words = weights.take("embeddings.word_embeddings.weight", [config.positive("vocab_size"), hidden])
    types, type_changes = None, NO_CHANGES
    if config.get("type_vocab_size", 0):
        count = config.positive("type_vocab_size")
        type_changes = weights.changes_of([("embeddings.token_type_embeddings", count)], hidden)
        types = weights.take("embeddings.token_type_embeddings.weight", [count, hidden])
    if types is not None and len(types) == 1:  # every token has it, whatever its type id
        words += types
        types = None
    return Embeddings(
        words=words,
        positions=positions,
        types=types,
        norm=load_layer_norm(weights, norm, hidden, epsilon_of(config)),
        word_changes=weights.changes_of([("embeddings.word_embeddings", len(words))], hidden),
        type_changes=type_changes,
    )


def load_attention(
    config: ModelConfig, weights: Weights, layer: str, names: Names, rotary: Rotary | None, *, bias: bool
) -> Attention:
    hidden, heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    width = heads * config.head_dim(hidden, heads)
    projections = [f"{layer}.{name}" for name in names.query_key_value]
    return Attention(
        query_key_value=load_linear(weights, projections, 3 * width // len(projections), hidden, bias=bias),
        output=load_linear(weights, f"{layer}.{names.attention_output}", hidden, width, bias=bias),
        heads=heads,
        key_heads=heads,
        pattern=AttentionPattern(),
        rotary=rotary,
    )


def load_plain_feed_forward(config: ModelConfig, weights: Weights, name: str, *, bias: bool = True) -> FeedForward:
    hidden, intermediate = config.positive("hidden_size"), config.positive("intermediate_size")
    activation = config.activation("hidden_act")
    return FeedForward(
        load_linear(weights, f"{name}.fc1", intermediate, hidden, bias=bias, activation=activation),
        load_linear(weights, f"{name}.fc2", hidden, intermediate, bias=bias),
    )


def load_gated_feed_forward(
    config: ModelConfig,
    weights: Weights,
    *,
    gate_up: Linear | tuple[str, str],
    down: str,
    bias: bool = False,
    down_bias: bool = False,
) -> GatedFeedForward:
    """`gate_up` is that linear, or the names of its two halves."""
    hidden, intermediate = config.positive("hidden_size"), config.positive("intermediate_size")
    if isinstance(gate_up, tuple):
        gate_up = load_linear(weights, gate_up, intermediate, hidden, bias=bias)
    return GatedFeedForward(
        gate_up=gate_up,
        activation=config.activation("hidden_act"),
        down=load_linear(weights, down, hidden, intermediate, bias=down_bias),
        intermediate=intermediate,
    )
