"""The head of an embedder: pooled vectors, and the hidden states themselves for those who ask for them."""

import itertools
from collections.abc import Sequence as Sequences
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from engine_svc.batch import Output, PackedBatch, Sequence
from engine_svc.models.heads.head import Array
from engine_svc.models.heads.vector_modules import Stage, apply_stages, load_token_modules, load_vector_modules
from engine_svc.models.weights import Weights
from engine_svc.pooling import finish, pool
from heddle.checkpoint import Checkpoint
from heddle.sentence_modules import Pooling


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

    def __call__(self, hidden: Tensor, cu_seqlens: Tensor, batch: PackedBatch) -> list[Array]:
        """Vectors float32 [dimensions], token vectors float32 [tokens, token dimension]."""
        hidden = self.token_rows(hidden)
        vectors = self.vectors(hidden, cu_seqlens, batch.sequences)
        if all(sequence.output is Output.VECTOR for sequence in batch.sequences):
            host = vectors.cpu().numpy()
            return [host[index, : sequence.dimensions or None] for index, sequence in enumerate(batch.sequences)]
        spans = itertools.pairwise(batch.cu_seqlens.tolist())
        return copy_to_host(
            [
                self.part(hidden[start:stop], vector, sequence, sequence.output)
                for (start, stop), vector, sequence in zip(spans, vectors, batch.sequences, strict=True)
            ]
        )

    def token_rows(self, hidden: Tensor) -> Tensor:
        """The rows that are pooled and returned as token vectors: [tokens, token dimension]."""
        return apply_stages(self.token_modules, hidden.float()) if self.token_modules else hidden

    def part(self, hidden: Tensor, vector: Tensor, sequence: Sequence, output: Output) -> Tensor:
        """The array of one output of a sequence. `hidden` and `vector` are the sequence's own."""
        return hidden.float() if output is Output.TOKEN_VECTORS else vector[: sequence.dimensions or None]

    def vectors(self, hidden: Tensor, cu_seqlens: Tensor, sequences: Sequences[Sequence]) -> Tensor:
        """Pools, cuts and normalises token rows: float32 [B, dimension], also for sequences that ask for no vector."""
        wishes = torch.tensor(
            [
                (sequence.prompt_tokens, sequence.dimensions or self.dimension, not sequence.skip_normalization)
                for sequence in sequences
            ],
            dtype=torch.int32,
            device=hidden.device,
        )
        prompt_tokens, dimensions, is_normalized = wishes.unbind(1)
        pooled = apply_stages(self.vector_modules, pool(hidden, cu_seqlens, prompt_tokens, self.pooling))
        return finish(pooled[:, : self.dimension], dimensions, is_normalized.bool())


def copy_to_host(parts: Sequences[Tensor]) -> list[Array]:
    """Copies all tensors at once: one transfer from a GPU costs less than many."""
    host = torch.cat([part.flatten() for part in parts]).cpu().numpy()
    stops = np.cumsum([part.numel() for part in parts])[:-1]
    return [flat.reshape(part.shape) for flat, part in zip(np.split(host, stops), parts, strict=True)]
