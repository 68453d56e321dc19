"""The heads of classifiers and rerankers (one row of logits per sequence) and of token classifiers (one per token).

They are small, so they compute in float32 whatever the encoder's type: that costs nothing and the scores keep their
order. Logits are as the model makes them; softmax, sigmoid and labels belong to whoever asked.
"""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from engine_svc.batch import Output, PackedBatch
from engine_svc.models.heads.head import Array
from engine_svc.models.linear import Linear


@dataclass(frozen=True, slots=True)
class SequenceClassificationHead:
    """As in BertForSequenceClassification: the first token of a sequence speaks for it. A reranker has one label."""

    outputs: ClassVar[frozenset[Output]] = frozenset({Output.LOGITS})

    pooler: Linear  # float32 hidden to hidden; tanh follows
    classifier: Linear  # float32 hidden to labels

    def __call__(self, hidden: Tensor, cu_seqlens: Tensor, batch: PackedBatch) -> list[Array]:
        """float32 [labels] each."""
        first_tokens = hidden[cu_seqlens[:-1]].float()
        logits: Tensor = self.classifier(torch.tanh(self.pooler(first_tokens)))
        return list(logits.cpu().numpy())


@dataclass(frozen=True, slots=True)
class TokenClassificationHead:
    """As in BertForTokenClassification: one linear over every token, special ones included."""

    outputs: ClassVar[frozenset[Output]] = frozenset({Output.TOKEN_LOGITS})

    classifier: Linear  # float32 hidden to labels

    def __call__(self, hidden: Tensor, cu_seqlens: Tensor, batch: PackedBatch) -> list[Array]:
        """float32 [tokens, labels] each."""
        host = self.classifier(hidden.float()).cpu().numpy()
        return [host[start:stop] for start, stop in itertools.pairwise(batch.cu_seqlens)]
