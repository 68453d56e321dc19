"""The transformer: every architecture is a way to fill these classes.

A file in `architectures/` turns a checkpoint's config and weights, by their names there, into a `Transformer`. Rows are
the tokens of a packed batch; only attention sees more than one of them at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.activations import Activation, apply_activation
from engine_svc.models.attention import attend
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.float8 import Float8Rows, takes_float8
from engine_svc.models.kernels.launch import runs_kernels
from engine_svc.models.layout import Layout
from engine_svc.models.linear import Linear
from engine_svc.models.lora import add_embedding_lora
from engine_svc.models.norms import LayerNorm, Norm, RMSNorm
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.rotary import Rotary, Rotation, rotate
from engine_svc.models.weights import LoraDeltas

# A feed-forward with more intermediate values than this computes a slice of the rows at a time: on a CPU to stay in its
# caches, on a GPU to bound its memory (1 GiB in 16 bits).
FEED_FORWARD_NUMBERS_MAX_CPU = 1 << 26
FEED_FORWARD_NUMBERS_MAX_GPU = 1 << 29

Rotations = Mapping[Rotary, Rotation]
# The input of a branch: Float8Rows only if the branch `takes_float8`.
BranchInput = Tensor | Float8Rows


@dataclass(frozen=True, slots=True)
class Embeddings:
    words: Tensor  # [vocabulary, embedding size]
    positions: Tensor | None = None  # [positions, embedding size], from the first position that a token can have
    types: Tensor | None = None  # [types, embedding size]
    scale: float = 1.0
    norm: Norm | None = None
    projection: Linear | None = None  # embedding size to hidden size, if they differ
    word_lora: LoraDeltas = ()
    type_lora: LoraDeltas = ()

    def __call__(self, tokens: PackedTokens) -> Tensor:
        embedded = functional.embedding(tokens.ids, self.words)
        if self.scale != 1.0:
            embedded *= self.scale
        if self.positions is not None:
            embedded += functional.embedding(tokens.positions, self.positions)
        if self.types is not None:
            embedded += functional.embedding(tokens.type_ids, self.types)
        add_embedding_lora(embedded, tokens.ids, self.word_lora)
        add_embedding_lora(embedded, tokens.type_ids, self.type_lora)
        if self.norm is not None:
            embedded = self.norm(embedded)
        return embedded if self.projection is None else self.projection(embedded)


@dataclass(frozen=True, slots=True)
class Attention:
    """Multi-head attention, or grouped-query attention if there are fewer heads for keys and values than for
    queries."""

    qkv_proj: Linear  # hidden size to (num_heads + 2 * num_kv_heads) * head_dim
    o_proj: Linear  # num_heads * head_dim to hidden size
    num_heads: int
    num_kv_heads: int
    pattern: AttentionPattern
    rotary: Rotary | None = None
    qk_norm: Norm | None = None  # of queries and keys [rows, num_heads + num_kv_heads, head_dim]

    @property
    def takes_float8(self) -> bool:
        return takes_float8(self.qkv_proj)

    def __call__(self, hidden: BranchInput, layout: Layout, rotations: Rotations) -> Tensor:
        query, key, value = self.project(hidden, rotations)
        return self.o_proj(attend(query, key, value, layout, self.pattern).flatten(1))

    def project(self, hidden: BranchInput, rotations: Rotations) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values [rows, heads, head_dim], normalized and rotated."""
        projected = self.qkv_proj(hidden).view(len(hidden), self.num_heads + 2 * self.num_kv_heads, -1)
        query_key, value = torch.split(projected, [self.num_heads + self.num_kv_heads, self.num_kv_heads], 1)
        if self.rotary is not None:
            query_key = rotate(query_key, rotations[self.rotary], self.qk_norm)
        elif self.qk_norm is not None:
            query_key = self.qk_norm(query_key)
        query, key = torch.split(query_key, [self.num_heads, self.num_kv_heads], 1)
        return query, key, value


@dataclass(frozen=True, slots=True)
class FeedForward:
    up_proj: Linear  # hidden size to intermediate size, activation included
    down_proj: Linear

    @property
    def takes_float8(self) -> bool:
        return takes_float8(self.up_proj)

    def __call__(self, hidden: BranchInput) -> Tensor:
        return self.down_proj(self.up_proj(hidden))


@dataclass(frozen=True, slots=True)
class GatedFeedForward:
    """GEGLU, SwiGLU and the like (Shazeer 2020, arXiv 2002.05202)."""

    gate_up_proj: Linear  # hidden size to 2 * intermediate size: what is activated, then what it multiplies
    activation: Activation
    down_proj: Linear
    intermediate_size: int

    @property
    def takes_float8(self) -> bool:
        return takes_float8(self.gate_up_proj)

    def __call__(self, hidden: BranchInput) -> Tensor:
        is_gpu = runs_kernels(hidden.device)
        numbers_max = FEED_FORWARD_NUMBERS_MAX_GPU if is_gpu else FEED_FORWARD_NUMBERS_MAX_CPU
        rows_max = max(1, numbers_max // (2 * self.intermediate_size))
        if len(hidden) <= rows_max:
            return self._compute(hidden)
        starts = range(0, len(hidden), rows_max)
        return torch.cat([self._compute(hidden[start : start + rows_max]) for start in starts])

    def _compute(self, hidden: BranchInput) -> Tensor:
        return self.down_proj(self._activate(self.gate_up_proj(hidden)))

    def _activate(self, gate_up: Tensor) -> BranchInput:
        if runs_kernels(gate_up.device):
            from engine_svc.models.kernels.gated import activate_gate, activate_gate_to_float8

            activate = activate_gate_to_float8 if takes_float8(self.down_proj) else activate_gate
            return activate(gate_up, self.activation)
        gate, up = torch.split(gate_up, self.intermediate_size, 1)
        return apply_activation(gate, self.activation).mul_(up)


class ResidualStream:
    """The hidden states between the branches of a layer. The output of a branch is added only when the sum is needed,
    so that one kernel does the addition together with the norm that follows."""

    def __init__(self, hidden: Tensor) -> None:
        self._hidden = hidden  # [rows, hidden size]
        self._update: Tensor | None = None  # not yet added to `_hidden`

    def add(self, update: Tensor) -> None:
        """Adds the output of a branch. The caller must not use the tensor again: the sum may be written into it."""
        self._hidden, self._update = self.hidden(), update

    def hidden(self) -> Tensor:
        if self._update is not None:
            self._hidden, self._update = self._update.add_(self._hidden), None
        return self._hidden

    def read_normalized(self, norm: Norm, *, as_float8: bool) -> BranchInput:
        """The norm of the hidden states, which stay as they are. Float8Rows if `as_float8` and a kernel runs."""
        if not has_kernel(norm, self._hidden):
            return norm(self.hidden())
        from engine_svc.models.kernels.norms import add_and_normalize

        result = add_and_normalize(self._hidden, norm, self._update, as_float8=as_float8)
        if self._update is not None:
            self._hidden, self._update = self._update, None
        return result

    def normalize(self, norm: Norm) -> None:
        """Replaces the hidden states by their norm."""
        if not has_kernel(norm, self._hidden):
            self._hidden = norm(self.hidden())
            return
        from engine_svc.models.kernels.norms import normalize

        self._hidden, self._update = normalize(self._hidden, norm, self._update), None


def has_kernel(norm: Norm, hidden: Tensor) -> TypeGuard[LayerNorm | RMSNorm]:
    return isinstance(norm, LayerNorm | RMSNorm) and runs_kernels(hidden.device)


@dataclass(frozen=True, slots=True)
class BranchNorms:
    """The norms around one of the two branches of a layer, attention and feed-forward: of its input (pre-norm: Llama),
    of its output (Gemma 2 has both), or of the sum of the output and the residual (post-norm: BERT)."""

    input: Norm | None = None
    output: Norm | None = None
    sum: Norm | None = None

    def run(self, branch: Callable[[Any], Tensor], stream: ResidualStream, *, as_float8: bool = False) -> None:
        """`as_float8` says that the branch takes Float8Rows. It gets them if a kernel computes the input norm."""
        if self.input is None:
            update = branch(stream.hidden())
        else:
            update = branch(stream.read_normalized(self.input, as_float8=as_float8))
        stream.add(update if self.output is None else self.output(update))
        if self.sum is not None:
            stream.normalize(self.sum)


@dataclass(frozen=True, slots=True)
class Layer:
    attention: Attention
    attention_norms: BranchNorms
    feed_forward: Callable[[Any], Tensor]  # [rows, hidden size], each row by itself; returns a new tensor
    feed_forward_norms: BranchNorms

    def __call__(self, stream: ResidualStream, layout: Layout, rotations: Rotations) -> None:
        def attend_rows(rows: BranchInput) -> Tensor:
            return self.attention(rows, layout, rotations)

        self.attention_norms.run(attend_rows, stream, as_float8=takes_float8(self.attention))
        self.feed_forward_norms.run(self.feed_forward, stream, as_float8=takes_float8(self.feed_forward))


@dataclass(frozen=True, slots=True)
class Transformer:
    embeddings: Embeddings
    layers: Sequence[Layer]
    norm: Norm | None = None  # after the last layer

    @property
    def is_causal(self) -> bool:
        """Whether the hidden states of a token depend only on its id and the ids before it."""
        is_causal = all(layer.attention.pattern.window_right == 0 for layer in self.layers)
        return is_causal and self.embeddings.types is None

    def __call__(self, tokens: PackedTokens) -> Tensor:
        """Hidden states of the last layer [rows, hidden size]. Those of filler tokens mean nothing."""
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
