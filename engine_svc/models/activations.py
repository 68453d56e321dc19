"""Activation functions. A linear applies the one that follows it; a gated feed-forward applies its own."""

import enum

import torch
from torch import Tensor
from torch.nn import functional


class Activation(enum.Enum):
    NONE = "none"
    GELU = "gelu"  # exact, with erf
    GELU_TANH = "gelu_tanh"
    RELU = "relu"
    SILU = "silu"
    TANH = "tanh"


# By their names in transformers.
ACTIVATIONS = {
    "gelu": Activation.GELU,
    "gelu_python": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_accurate": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "gelu_python_tanh": Activation.GELU_TANH,
    "relu": Activation.RELU,
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "tanh": Activation.TANH,
    "linear": Activation.NONE,
}


def apply_activation(values: Tensor, activation: Activation) -> Tensor:
    match activation:
        case Activation.NONE:
            return values
        case Activation.GELU:
            return functional.gelu(values)
        case Activation.GELU_TANH:
            return functional.gelu(values, approximate="tanh")
        case Activation.RELU:
            return functional.relu(values)
        case Activation.SILU:
            return functional.silu(values)
        case Activation.TANH:
            return torch.tanh(values)
