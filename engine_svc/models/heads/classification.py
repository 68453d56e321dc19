"""The heads of classifiers and rerankers (one row of logits per sequence) and of token classifiers (one per token).

They are small, so they compute in float32 whatever the transformer's type: that costs nothing and the scores keep their
order. Logits are as the model makes them; softmax, sigmoid and labels belong to whoever asked.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from engine_svc.batch import Output, PackedBatch
from engine_svc.models.activations import Activation
from engine_svc.models.heads.head import Array
from engine_svc.models.heads.vector_modules import Stage, apply_stages
from engine_svc.models.linear import load_linear
from engine_svc.models.weights import Weights
from engine_svc.pooling import pool
from heddle.sentence_modules import Pooling


@dataclass(frozen=True, slots=True)
class SequenceClassificationHead:
    """One vector speaks for a sequence, most often that of its first token; in decoders that of the last. A reranker
    has one label."""

    outputs: ClassVar[frozenset[Output]] = frozenset({Output.LOGITS})

    pooling: Pooling
    stages: Sequence[Stage]  # the last one gives the labels

    def __call__(self, hidden: Tensor, cu_seqlens: Tensor, batch: PackedBatch) -> list[Array]:
        """float32 [labels] each."""
        no_prompts = torch.zeros_like(cu_seqlens[1:])
        logits = apply_stages(self.stages, pool(hidden, cu_seqlens, no_prompts, [self.pooling]))
        return list(logits.cpu().numpy())


@dataclass(frozen=True, slots=True)
class TokenClassificationHead:
    """The same for every token, special ones included."""

    outputs: ClassVar[frozenset[Output]] = frozenset({Output.TOKEN_LOGITS})

    stages: Sequence[Stage]

    def __call__(self, hidden: Tensor, cu_seqlens: Tensor, batch: PackedBatch) -> list[Array]:
        """float32 [tokens, labels] each."""
        host = apply_stages(self.stages, hidden.float()).cpu().numpy()
        return [host[start:stop] for start, stop in itertools.pairwise(batch.cu_seqlens)]


def float32_linear(
    weights: Weights,
    name: str,
    outputs: int,
    inputs: int,
    *,
    bias: bool = True,
    activation: Activation = Activation.NONE,
) -> Stage:
    """Raises CheckpointError."""
    return load_linear(weights, name, outputs, inputs, bias=bias, activation=activation, dtype=torch.float32)
