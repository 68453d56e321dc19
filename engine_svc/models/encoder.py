"""The encoder of BERT and its kin: learned positions, attention and feed-forward, a layer norm after each.

An architecture is a function that takes a checkpoint's config and weights, by their names there, to an `Encoder`;
`bert.py` is one. The forward pass is here, once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from engine_svc.models.attention import Layout, attend
from engine_svc.models.linear import Linear
from engine_svc.models.packed_tokens import PackedTokens


@dataclass(frozen=True, slots=True)
class LayerNorm:
    weight: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, hidden: Tensor) -> Tensor:
        return functional.layer_norm(hidden, self.weight.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True, slots=True)
class Embeddings:
    words: Tensor  # [vocabulary, hidden]
    positions: Tensor  # [positions, hidden], from the first that a token can have
    types: Tensor | None  # [types, hidden]
    norm: LayerNorm

    def __call__(self, tokens: PackedTokens) -> Tensor:
        embedded = functional.embedding(tokens.ids, self.words)
        embedded += functional.embedding(tokens.positions, self.positions)
        if self.types is not None:
            embedded += functional.embedding(tokens.type_ids, self.types)
        return self.norm(embedded)


@dataclass(frozen=True, slots=True)
class Layer:
    heads: int
    query_key_value: Linear  # hidden to 3 * hidden
    attention_output: Linear
    attention_norm: LayerNorm
    feed_forward_input: Linear  # hidden to intermediate, activation included
    feed_forward_output: Linear
    feed_forward_norm: LayerNorm

    def __call__(self, hidden: Tensor, layout: Layout) -> Tensor:
        hidden = self.attention_norm(self.attention_output(self._attended(hidden, layout)).add_(hidden))
        return self.feed_forward_norm(self.feed_forward_output(self.feed_forward_input(hidden)).add_(hidden))

    def _attended(self, hidden: Tensor, layout: Layout) -> Tensor:
        query, key, value = self.query_key_value(hidden).view(len(hidden), 3, self.heads, -1).unbind(1)
        return attend(query, key, value, layout).flatten(1)


@dataclass(frozen=True, slots=True)
class Encoder:
    embeddings: Embeddings
    layers: Sequence[Layer]
    head_dim: int

    def __call__(self, tokens: PackedTokens) -> Tensor:
        """Hidden states of the last layer [rows, hidden]; those of filler tokens mean nothing."""
        hidden = self.embeddings(tokens)
        for layer in self.layers:
            hidden = layer(hidden, tokens.layout)
        return hidden
