"""The heads of classifiers and rerankers (a row of logits for each sequence) and of token classifiers (one for each
token).

They are small, so they compute in float32 whatever the transformer's type. That costs nothing, and keeps the order of
the scores. They return logits; softmax, sigmoid and labels are the tokenizer pod's task.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from engine_svc.models.activations import Activation
from engine_svc.models.heads.head import HeadOutputs, read_by_length
from engine_svc.models.heads.vector_modules import Stage, apply_stages
from engine_svc.models.linear import load_linear
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.weights import Weights
from engine_svc.pooling import pool
from engine_svc.sequences import Output, PackedBatch
from heddle.checkpoint.sentence_modules import Pooling


@dataclass(frozen=True, slots=True)
class SequenceClassificationHead:
    """Classifies a pooled vector: most often that of the first token, in decoders that of the last. A reranker has one
    label."""

    outputs: ClassVar[frozenset[Output]] = frozenset({Output.LOGITS})

    pooling: Pooling
    stages: Sequence[Stage]  # the last one gives the labels

    def __call__(self, hidden: Tensor, tokens: PackedTokens, batch: PackedBatch) -> HeadOutputs:
        """float32 [labels] each."""
        pooled = pool(hidden[: batch.tokens], tokens.layout.cu_seqlens, [self.pooling])
        return HeadOutputs.of(Output.LOGITS, apply_stages(self.stages, pooled))


@dataclass(frozen=True, slots=True)
class TokenClassificationHead:
    """Classifies every token, special tokens included."""

    outputs: ClassVar[frozenset[Output]] = frozenset({Output.TOKEN_LOGITS})

    stages: Sequence[Stage]

    def __call__(self, hidden: Tensor, tokens: PackedTokens, batch: PackedBatch) -> HeadOutputs:
        """float32 [tokens, labels] each."""
        logits = apply_stages(self.stages, hidden.float())[: batch.tokens]
        return HeadOutputs.of(Output.TOKEN_LOGITS, logits, read_by_length(batch.lengths))


def load_float32_linear(
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
