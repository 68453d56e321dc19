"""The heads of embedders: pooled vectors and the hidden states themselves, or ColBERT's vectors of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from engine_svc.models.heads.head import HeadOutputs, Part, join_parts, read_by_length
from engine_svc.models.heads.vector_modules import Stage, apply_stages, load_token_modules, load_vector_modules
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.weights import Weights
from engine_svc.pooling import finish, pool
from engine_svc.sequences import Output, PackedBatch
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.sentence_modules import Pooling


@dataclass(frozen=True, slots=True)
class EmbeddingHead:
    outputs: ClassVar[frozenset[Output]] = frozenset({Output.VECTOR, Output.TOKEN_VECTORS})

    pooling: Sequence[Pooling]  # several are concatenated
    token_modules: Sequence[Stage]  # applied to each token's vector, before pooling
    vector_modules: Sequence[Stage]  # applied to the pooled vectors
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
        return join_parts({output: self.compute(output, hidden, tokens) for output in tokens.head_inputs.selections})

    def token_rows(self, hidden: Tensor) -> Tensor:
        """The rows that are pooled and returned as token vectors: [at least T, token dimension]."""
        return apply_stages(self.token_modules, hidden.float()) if self.token_modules else hidden

    def compute(self, output: Output, hidden: Tensor, tokens: PackedTokens) -> Part:
        """`hidden` are the token rows [T, token dimension]."""
        selection = tokens.head_inputs.selections[output]
        if output is Output.TOKEN_VECTORS:
            return Part(selection.select(hidden).float(), read_by_length(selection.lengths))
        return Part(selection.select(self.vectors(hidden, tokens)))

    def vectors(self, hidden: Tensor, tokens: PackedTokens) -> Tensor:
        """Pools, cuts and normalizes token rows [T, token dimension]: float32 [B, dimension], also for sequences that
        ask for no vector."""
        inputs = tokens.head_inputs
        pooled = pool(hidden, tokens.layout.cu_seqlens, self.pooling, inputs.prompts)
        pooled = apply_stages(self.vector_modules, pooled)[:, : self.dimension]
        return finish(pooled, inputs.dimensions, inputs.skip_normalization)


@dataclass(frozen=True, slots=True)
class MultiVectorHead:
    """ColBERT (arXiv 2004.12832): the vector of each token, projected and normalized."""

    outputs: ClassVar[frozenset[Output]] = frozenset({Output.TOKEN_VECTORS})

    token_modules: Sequence[Stage]

    @classmethod
    def load(cls, checkpoint: Checkpoint, weights: Weights) -> "MultiVectorHead":
        """Raises CheckpointError."""
        return cls(load_token_modules(checkpoint, weights))

    def __call__(self, hidden: Tensor, tokens: PackedTokens, batch: PackedBatch) -> HeadOutputs:
        """float32 [tokens, dimension] each."""
        rows = functional.normalize(apply_stages(self.token_modules, hidden[: batch.tokens].float()), dim=1)
        return HeadOutputs.of(Output.TOKEN_VECTORS, rows, read_by_length(batch.lengths))
