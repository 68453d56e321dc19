"""The head of an embedder: pooled vectors, and the hidden states themselves for those who ask for them."""

from collections.abc import Sequence as Sequences
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from engine_svc.batch import Output, PackedBatch
from engine_svc.models.heads.head import HeadOutputs, Part, by_tokens, joined
from engine_svc.models.heads.vector_modules import Stage, apply_stages, load_token_modules, load_vector_modules
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.weights import Weights
from engine_svc.pooling import finish, pool
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.sentence_modules import Pooling


@dataclass(frozen=True, slots=True)
class EmbeddingHead:
    outputs: ClassVar[frozenset[Output]] = frozenset({Output.VECTOR, Output.TOKEN_VECTORS})

    pooling: Sequences[Pooling]  # several are concatenated
    token_modules: Sequences[Stage]  # applied to each token's vector, before pooling
    vector_modules: Sequences[Stage]  # applied to the pooled vectors
    dimension: int  # vectors are cut to it

    @classmethod
    def load(cls, checkpoint: Checkpoint, weights: Weights) -> "EmbeddingHead":
        """Raises CheckpointError."""
        return cls(
            pooling=checkpoint.pooling,
            token_modules=load_token_modules(checkpoint, weights),
            vector_modules=load_vector_modules(
                checkpoint.vector_modules, weights, checkpoint.token_dimension * len(checkpoint.pooling)
            ),
            dimension=checkpoint.dimension,
        )

    def __call__(self, hidden: Tensor, tokens: PackedTokens, batch: PackedBatch) -> HeadOutputs:
        """Vectors float32 [dimension], token vectors float32 [tokens, token dimension]."""
        hidden = self.token_rows(hidden)[: batch.tokens]
        parts = {output: self.part(output, hidden, tokens) for output in tokens.head_inputs.selections}
        return joined(parts)

    def token_rows(self, hidden: Tensor) -> Tensor:
        """The rows that are pooled and returned as token vectors: [at least T, token dimension]."""
        return apply_stages(self.token_modules, hidden.float()) if self.token_modules else hidden

    def part(self, output: Output, hidden: Tensor, tokens: PackedTokens) -> Part:
        """`hidden` are the token rows [T, token dimension]."""
        selection = tokens.head_inputs.selections[output]
        if output is Output.TOKEN_VECTORS:
            return Part(selection.of(hidden).float(), by_tokens(selection.lengths))
        return Part(selection.of(self.vectors(hidden, tokens)))

    def vectors(self, hidden: Tensor, tokens: PackedTokens) -> Tensor:
        """Pools, cuts and normalises token rows [T, token dimension]: float32 [B, dimension], also for sequences that
        ask for no vector."""
        inputs = tokens.head_inputs
        pooled = pool(hidden, tokens.layout.cu_seqlens, self.pooling, inputs.prompts)
        pooled = apply_stages(self.vector_modules, pooled)[:, : self.dimension]
        return finish(pooled, inputs.dimensions, inputs.skips_normalization)
