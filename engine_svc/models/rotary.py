"""Rotary positions (RoFormer, arXiv 2104.09864): queries and keys turned by angles that grow with their position, so
that their products know how far apart two tokens are. Each model has one such set of angles, or one for each kind of
layer; `rope_scaling.py` stretches them for texts longer than those that a model was trained on.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine_svc.models.kernels.available import runs_kernels
from engine_svc.models.norms import Norm, RMSNorm
from engine_svc.models.packed_tokens import PackedTokens

Rotation = tuple[Tensor, Tensor]  # cosines and sines [rows, 1, rotated / 2]


@dataclass(frozen=True, slots=True)
class Stretch:
    """For texts longer than `trained_tokens`: a base that grows with each text's own length, which "dynamic" scaling
    is. It is the text's, not the batch's, so that a text has the same vector in any company."""

    factor: float
    trained_tokens: int

    def of(self, frequencies: Tensor, tokens: PackedTokens) -> Tensor:
        """[rows, 1, rotated / 2]"""
        lengths = tokens.layout.cu_seqlens.diff()
        of_rows = torch.ones(len(tokens.positions), device=frequencies.device)
        # With its size it need not wait for the device to count.
        of_tokens = torch.repeat_interleave(lengths, lengths, output_size=tokens.layout.tokens)
        of_rows[: len(of_tokens)] = of_tokens.float()
        growth = (self.factor * of_rows / self.trained_tokens - (self.factor - 1)).clamp(min=1)
        half = len(frequencies)
        powers = torch.arange(half, device=frequencies.device) / (half - 1)
        return frequencies / growth[:, None, None] ** powers


@dataclass(frozen=True, slots=True, eq=False)
class Rotary:
    frequencies: Tensor  # float32 [rotated / 2]; angle per position
    scale: float = 1.0  # of both cosine and sine: YaRN sharpens attention that way
    stretch: Stretch | None = None

    def at(self, tokens: PackedTokens, dtype: torch.dtype) -> Rotation:
        frequencies = self.frequencies
        if self.stretch is not None and tokens.layout.length_max > self.stretch.trained_tokens:
            frequencies = self.stretch.of(frequencies, tokens)
        angles = tokens.positions[:, None, None] * frequencies
        return (angles.cos() * self.scale).to(dtype), (angles.sin() * self.scale).to(dtype)


def rotate(heads: Tensor, rotation: Rotation, norm: Norm | None = None) -> Tensor:
    """Normalizes heads [rows, heads, head_dim] if there is a norm, then rotates them. May do so in place."""
    if runs_kernels(heads.device) and (norm is None or isinstance(norm, RMSNorm)):
        from engine_svc.models.kernels.rotary import rotate_in_place

        rotate_in_place(heads, rotation, norm)
        return heads
    return rotate_plainly(heads if norm is None else norm(heads), rotation)


def rotate_plainly(heads: Tensor, rotation: Rotation) -> Tensor:
    """Components i and i + rotated / 2 of a head are rotated as a pair. Components from `rotated` on stay the same."""
    cosines, sines = rotation
    half = cosines.shape[-1]
    first, second, rest = torch.split(heads, [half, half, heads.shape[-1] - 2 * half], -1)
    turned = [first * cosines - second * sines, second * cosines + first * sines]
    return torch.cat([*turned, rest] if rest.shape[-1] else turned, -1)
