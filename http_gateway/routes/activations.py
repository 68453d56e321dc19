"""How logits become scores where a caller of /predict says so: `function_to_apply` of Hugging Face's pipelines."""

from typing import Literal

import numpy as np

from heddle.tensors import Floats

Activation = Literal["none", "sigmoid", "softmax"]


def activate(logits: Floats, activation: Activation) -> Floats:
    """Of logits [inputs, labels]."""
    scores: Floats
    if activation == "sigmoid":
        # Of whichever sign, no power is taken that could overflow.
        small = np.exp(-np.abs(logits))
        scores = np.where(logits >= 0, 1, small) / (1 + small)
    elif activation == "softmax":
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        scores = powers / powers.sum(axis=-1, keepdims=True)
    else:
        scores = logits
    return scores.astype(np.float32, copy=False)
