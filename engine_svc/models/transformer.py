"""The transformer, once, with its variations named: every architecture is a way to fill these classes.

A file in `architectures/` takes a checkpoint's config and weights, by their names there, to a `Transformer`. Rows are
the tokens of a packed batch; only attention sees more than one at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.activations import Activation, activated
from engine_svc.models.attention import attend
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.float8 import Float8Rows, takes_float8
from engine_svc.models.kernels.available import runs_kernels
from engine_svc.models.layout import Layout
from engine_svc.models.linear import Linear
from engine_svc.models.low_rank import Changes, add_changes_of_table
from engine_svc.models.norms import Norm
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.residual_stream import ResidualStream
from engine_svc.models.rotary import Rotary, Rotation, rotate

# A feed-forward with more intermediate values than this computes a slice of the rows at a time: on a CPU to stay in its
# caches, on a GPU to bound its memory (1 GiB in 16 bits).
FEED_FORWARD_NUMBERS_MAX = 1 << 26
FEED_FORWARD_NUMBERS_MAX_OF_GPU = 1 << 29

Rotations = Mapping[Rotary, Rotation]
# What a norm passes to the branch after it: Float8Rows only if the branch `takes_float8`.
Rows = Tensor | Float8Rows


@dataclass(frozen=True, slots=True)
class Embeddings:
    words: Tensor  # [vocabulary, width]
    positions: Tensor | None = None  # [positions, width], from the first that a token can have
    types: Tensor | None = None  # [types, width]
    scale: float = 1.0
    norm: Norm | None = None
    projection: Linear | None = None  # width to hidden, where they differ
    word_changes: Changes = ()
    type_changes: Changes = ()

    def __call__(self, tokens: PackedTokens) -> Tensor:
        embedded = functional.embedding(tokens.ids, self.words)
        if self.scale != 1.0:
            embedded *= self.scale
        if self.positions is not None:
            embedded += functional.embedding(tokens.positions, self.positions)
        if self.types is not None:
            embedded += functional.embedding(tokens.type_ids, self.types)
        add_changes_of_table(embedded, tokens.ids, self.word_changes)
        add_changes_of_table(embedded, tokens.type_ids, self.type_changes)
        if self.norm is not None:
            embedded = self.norm(embedded)
        return embedded if self.projection is None else self.projection(embedded)


@dataclass(frozen=True, slots=True)
class Attention:
    """Grouped-query attention; with as many heads for keys and values as for queries it is the usual one."""

    query_key_value: Linear  # hidden to (heads + 2 * key_heads) * head_dim
    output: Linear  # heads * head_dim to hidden
    heads: int
    key_heads: int
    pattern: AttentionPattern
    rotary: Rotary | None = None
    head_norm: Norm | None = None  # of queries and keys [rows, heads + key_heads, head_dim]

    @property
    def takes_float8(self) -> bool:
        return takes_float8(self.query_key_value)

    def __call__(self, hidden: Rows, layout: Layout, rotations: Rotations) -> Tensor:
        projected = self.query_key_value(hidden).view(len(hidden), self.heads + 2 * self.key_heads, -1)
        query_key, value = torch.split(projected, [self.heads + self.key_heads, self.key_heads], 1)
        if self.rotary is not None:
            query_key = rotate(query_key, rotations[self.rotary], self.head_norm)
        elif self.head_norm is not None:
            query_key = self.head_norm(query_key)
        query, key = torch.split(query_key, [self.heads, self.key_heads], 1)
        return self.output(attend(query, key, value, layout, self.pattern).flatten(1))


@dataclass(frozen=True, slots=True)
class FeedForward:
    up: Linear  # hidden to intermediate, activation included
    down: Linear

    @property
    def takes_float8(self) -> bool:
        return takes_float8(self.up)

    def __call__(self, hidden: Rows) -> Tensor:
        return self.down(self.up(hidden))


@dataclass(frozen=True, slots=True)
class GatedFeedForward:
    """Shazeer 2020, arXiv 2002.05202: GEGLU, SwiGLU and their like."""

    gate_up: Linear  # hidden to 2 * intermediate: what is activated, then what it multiplies
    activation: Activation
    down: Linear
    intermediate: int

    @property
    def takes_float8(self) -> bool:
        return takes_float8(self.gate_up)

    def __call__(self, hidden: Rows) -> Tensor:
        numbers_max = FEED_FORWARD_NUMBERS_MAX_OF_GPU if runs_kernels(hidden.device) else FEED_FORWARD_NUMBERS_MAX
        rows_max = max(1, numbers_max // (2 * self.intermediate))
        if len(hidden) <= rows_max:
            return self._slice(hidden)
        starts = range(0, len(hidden), rows_max)
        return torch.cat([self._slice(hidden[start : start + rows_max]) for start in starts])

    def _slice(self, hidden: Rows) -> Tensor:
        return self.down(self._gated(self.gate_up(hidden)))

    def _gated(self, gate_up: Tensor) -> Rows:
        if runs_kernels(gate_up.device):
            from engine_svc.models.kernels.gated import activate_gate, activate_gate_to_float8

            activate = activate_gate_to_float8 if takes_float8(self.down) else activate_gate
            return activate(gate_up, self.activation)
        gate, up = torch.split(gate_up, self.intermediate, 1)
        return activated(gate, self.activation).mul_(up)


@dataclass(frozen=True, slots=True)
class Norms:
    """Where one of a layer's two branches is normalised: before it (Llama), behind it (Gemma 2 does both), or its sum
    with what it was given (BERT)."""

    before: Norm | None = None
    behind: Norm | None = None
    of_sum: Norm | None = None

    def around(self, branch: Callable[[Any], Tensor], stream: ResidualStream, *, as_float8: bool = False) -> None:
        """`as_float8` says that the branch takes Float8Rows. It gets them if a kernel computes the norm before it."""
        update = branch(stream.hidden() if self.before is None else stream.normalized(self.before, as_float8=as_float8))
        stream.add(update if self.behind is None else self.behind(update))
        if self.of_sum is not None:
            stream.normalize(self.of_sum)


@dataclass(frozen=True, slots=True)
class Layer:
    attention: Attention
    attention_norms: Norms
    feed_forward: Callable[[Any], Tensor]  # [rows, hidden], each row for itself; a new tensor
    feed_forward_norms: Norms

    def __call__(self, stream: ResidualStream, layout: Layout, rotations: Rotations) -> None:
        def attend(rows: Rows) -> Tensor:
            return self.attention(rows, layout, rotations)

        self.attention_norms.around(attend, stream, as_float8=takes_float8(self.attention))
        self.feed_forward_norms.around(self.feed_forward, stream, as_float8=takes_float8(self.feed_forward))


@dataclass(frozen=True, slots=True)
class Transformer:
    embeddings: Embeddings
    layers: Sequence[Layer]
    norm: Norm | None = None  # after the last layer

    @property
    def is_causal(self) -> bool:
        """Whether a token's hidden states depend on its id and the ids before it alone."""
        is_causal = all(layer.attention.pattern.ahead == 0 for layer in self.layers)
        return is_causal and self.embeddings.types is None

    def __call__(self, tokens: PackedTokens) -> Tensor:
        """Hidden states of the last layer [rows, hidden]; those of filler tokens mean nothing."""
        stream = ResidualStream(self.embeddings(tokens))
        rotations = self._rotations(tokens, stream.hidden().dtype)
        for layer in self.layers:
            layer(stream, tokens.layout, rotations)
        if self.norm is not None:
            stream.normalize(self.norm)
        return stream.hidden()

    def _rotations(self, tokens: PackedTokens, dtype: torch.dtype) -> Rotations:
        rotaries = {layer.attention.rotary for layer in self.layers if layer.attention.rotary is not None}
        return {rotary: rotary.at(tokens, dtype) for rotary in rotaries}
