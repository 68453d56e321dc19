"""The head of a multi-vector embedder (ColBERT, arXiv 2004.12832): each token's vector, projected and of length 1."""

from collections.abc import Sequence as Sequences
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from engine_svc.batch import Output, PackedBatch
from engine_svc.models.heads.head import HeadOutputs, by_tokens
from engine_svc.models.heads.vector_modules import Stage, apply_stages, load_token_modules
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class MultiVectorHead:
    outputs: ClassVar[frozenset[Output]] = frozenset({Output.TOKEN_VECTORS})

    token_modules: Sequences[Stage]

    @classmethod
    def load(cls, checkpoint: Checkpoint, weights: Weights) -> "MultiVectorHead":
        """Raises CheckpointError."""
        return cls(load_token_modules(checkpoint, weights))

    def __call__(self, hidden: Tensor, tokens: PackedTokens, batch: PackedBatch) -> HeadOutputs:
        """float32 [tokens, dimension] each."""
        rows = functional.normalize(apply_stages(self.token_modules, hidden[: batch.tokens].float()), dim=1)
        return HeadOutputs.of(Output.TOKEN_VECTORS, rows, by_tokens(batch.lengths))
