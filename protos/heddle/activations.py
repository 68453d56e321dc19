"""Turns logits into scores: the same numbers whether the tokenizer or the gateway does it. Pure functions."""

import numpy as np

from heddle.tensors import Floats


def sigmoid(logits: Floats) -> Floats:
    """Applies to each element. Takes no exponent above 0, so that nothing overflows."""
    wide = logits.astype(np.float64)
    decay = np.exp(-np.abs(wide))
    scores: Floats = (np.where(wide >= 0, 1.0, decay) / (1.0 + decay)).astype(np.float32)
    return scores


def softmax(logits: Floats) -> Floats:
    """Over the last axis, in float32, step by step as in transformers.pipelines.token_classification."""
    exponentials = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    scores: Floats = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return scores
