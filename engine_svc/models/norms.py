"""Layer norm and RMS norm, of each row or of each head of a row. The transformer and the heads use them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.kernels.launch import runs_kernels
from engine_svc.models.weights import Weights

Norm = Callable[[Tensor], Tensor]  # over the last dimension; returns a new tensor of the same type


@dataclass(frozen=True, slots=True)
class LayerNorm:
    weight: Tensor
    bias: Tensor | None
    epsilon: float

    def __call__(self, hidden: Tensor) -> Tensor:
        return functional.layer_norm(hidden, self.weight.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True, slots=True)
class RMSNorm:
    """Zhang and Sennrich 2019, arXiv 1910.07467. Sums are float32 whatever the type of the rows."""

    weight: Tensor  # float32 [size], or [heads, size] for the heads of a row
    epsilon: float

    def __call__(self, hidden: Tensor) -> Tensor:
        if self.weight.ndim == 1 and runs_kernels(hidden.device):
            from engine_svc.models.kernels.norms import normalize

            return normalize(hidden, self)
        return self.compute_by_torch(hidden)

    def compute_by_torch(self, hidden: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32)
        scales = lengths.square_().div_(hidden.shape[-1]).add_(self.epsilon).rsqrt_()
        scaled: Tensor = hidden * scales
        return scaled.mul_(self.weight).to(hidden.dtype)


@dataclass(frozen=True, slots=True)
class QueryKeyNorm:
    """Layer norm of all heads of a query as one row, and of all heads of a key as another."""

    weight: Tensor  # [2, heads * head_dim]
    bias: Tensor
    epsilon: float

    def __call__(self, heads: Tensor) -> Tensor:
        """`heads` is [rows, 2 * heads, head_dim]: those of the query, then those of the key."""
        halves = heads.reshape(len(heads), *self.weight.shape)
        normalized = functional.layer_norm(halves, self.weight.shape[1:], eps=self.epsilon)
        return torch.addcmul(self.bias, normalized, self.weight).view(heads.shape)


def load_layer_norm(
    weights: Weights, name: str, size: int, epsilon: float, *, bias: bool = True, dtype: torch.dtype | None = None
) -> LayerNorm:
    """`dtype` overrides the model's."""
    weight = weights.load(f"{name}.weight", [size], dtype)
    return LayerNorm(weight, weights.load(f"{name}.bias", [size], dtype) if bias else None, epsilon)


def load_rms_norm(weights: Weights, name: str, size: int, epsilon: float, *, offset: float = 0.0) -> RMSNorm:
    """`offset` is added to the stored weight: Gemma stores the difference of its weights from 1."""
    weight = weights.load(f"{name}.weight", [size], torch.float32)
    return RMSNorm(weight if weight.is_meta or not offset else weight + offset, epsilon)
