"""Rotary positions (RoFormer, arXiv 2104.09864): queries and keys turned by angles that grow with their position, so
that their products know how far apart two tokens are. Each model has one such set of angles, or one for each kind of
layer; `rope_scaling.py` stretches them for texts longer than those that a model was trained on.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]  # cosines and sines [rows, 1, rotated / 2]


@dataclass(frozen=True, slots=True, eq=False)
class Rotary:
    frequencies: Tensor  # float32 [rotated / 2]; angle per position
    scale: float = 1.0  # of both cosine and sine: YaRN sharpens attention that way

    def at(self, positions: Tensor, dtype: torch.dtype) -> Rotation:
        angles = positions[:, None, None] * self.frequencies
        return (angles.cos() * self.scale).to(dtype), (angles.sin() * self.scale).to(dtype)


def rotated(heads: Tensor, rotation: Rotation) -> Tensor:
    """[rows, heads, head_dim], whose components i and i + rotated / 2 are the two coordinates that turn together; what
    lies behind the rotated ones stays as it is."""
    cosines, sines = rotation
    half = cosines.shape[-1]
    first, second, rest = torch.split(heads, [half, half, heads.shape[-1] - 2 * half], -1)
    turned = [first * cosines - second * sines, second * cosines + first * sines]
    return torch.cat([*turned, rest] if rest.shape[-1] else turned, -1)
