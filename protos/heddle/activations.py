"""Turns logits into scores. Shared by tokenizer and gateway, so that both compute the same numbers."""

import numpy as np

from heddle.tensors import Floats


def sigmoid(logits: Floats) -> Floats:
    """Applies to each element. Never computes exp of a positive number, which could overflow."""
    wide = logits.astype(np.float64)
    decay = np.exp(-np.abs(wide))
    scores: Floats = (np.where(wide >= 0, 1.0, decay) / (1.0 + decay)).astype(np.float32)
    return scores


def softmax(logits: Floats) -> Floats:
    """Applies to the last axis, in float32, with the same steps as transformers.pipelines.token_classification."""
    exponentials = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    scores: Floats = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return scores
