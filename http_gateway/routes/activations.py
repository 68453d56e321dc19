"""Turns logits into scores with the activation that a caller asks for: `function_to_apply` of Hugging Face's pipelines
at /predict, and vLLM's `use_activation` for tokens at /pooling."""

from typing import Literal

import numpy as np

from heddle.tensors import Floats

Activation = Literal["none", "sigmoid", "softmax"]


def activate(logits: Floats, activation: Activation) -> Floats:
    """`logits` is [inputs, labels]."""
    scores: Floats
    if activation == "sigmoid":
        # Only exponents up to 0, so that nothing overflows.
        small = np.exp(-np.abs(logits))
        scores = np.where(logits >= 0, 1, small) / (1 + small)
    elif activation == "softmax":
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        scores = powers / powers.sum(axis=-1, keepdims=True)
    else:
        scores = logits
    return scores.astype(np.float32, copy=False)
