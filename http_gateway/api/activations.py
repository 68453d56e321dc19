"""Turns logits into scores with the activation that a caller asks for: `function_to_apply` of Hugging Face's pipelines
at /predict, and vLLM's `use_activation` for tokens at /pooling."""

from typing import Literal

from heddle.activations import sigmoid, softmax
from heddle.tensors import Floats

Activation = Literal["none", "sigmoid", "softmax"]


def activate(logits: Floats, activation: Activation) -> Floats:
    """`logits` is [inputs, labels]."""
    if activation == "sigmoid":
        return sigmoid(logits)
    return softmax(logits) if activation == "softmax" else logits
