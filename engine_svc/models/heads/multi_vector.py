"""The head of a multi-vector embedder (ColBERT, arXiv 2004.12832): each token's vector, projected and of length 1."""

import itertools
from collections.abc import Sequence as Sequences
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from engine_svc.batch import Output, PackedBatch
from engine_svc.models.heads.head import Array
from engine_svc.models.heads.vector_modules import Stage, apply_stages, load_token_modules
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

    def __call__(self, hidden: Tensor, cu_seqlens: Tensor, batch: PackedBatch) -> list[Array]:
        """float32 [tokens, dimension] each."""
        host = (
            functional.normalize(apply_stages(self.token_modules, hidden[: batch.tokens].float()), dim=1).cpu().numpy()
        )
        return [host[start:stop] for start, stop in itertools.pairwise(batch.cu_seqlens)]
