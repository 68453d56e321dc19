"""Rotary positions (RoFormer, arXiv 2104.09864): queries and keys are rotated by angles that grow with their position,
so that their products depend on the distance of two tokens. A model has one set of angles, or one for each type of
layer.

A config states a base, and how the angles are scaled for texts longer than those of the training. transformers 5 has
one mapping `rope_parameters`, or one for each type of layer; transformers 4 had `rope_theta` and `rope_scaling` side by
side. The formulas are those of transformers.modeling_rope_utils.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine_svc.models.kernels.launch import runs_kernels
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.norms import Norm, RMSNorm
from engine_svc.models.packed_tokens import PackedTokens
from heddle.checkpoint.json_files import get_field

Rotation = tuple[Tensor, Tensor]  # cosines and sines [rows, 1, rotary_dim / 2]
RopeParameters = Mapping[str, Any]

# Layer types of models in which layers with a sliding window take turns with layers without one.
FULL_ATTENTION, SLIDING_ATTENTION = "full_attention", "sliding_attention"

# The parameters that are numbers, in all types of scaling.
NUMBERS = frozenset(
    {
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "factor",
        "high_freq_factor",
        "low_freq_factor",
        "mscale",
        "mscale_all_dim",
        "original_max_position_embeddings",
        "partial_rotary_factor",
        "rope_theta",
    }
)


@dataclass(frozen=True, slots=True)
class DynamicScaling:
    """For texts longer than `trained_tokens`: a base that grows with the length of each text. It is the text's length
    and not the batch's, so that a text has the same vector in any batch."""

    factor: float
    trained_tokens: int

    def scale(self, frequencies: Tensor, tokens: PackedTokens) -> Tensor:
        """[rows, 1, rotary_dim / 2]"""
        lengths = tokens.layout.cu_seqlens.diff()
        length_of_row = torch.ones(len(tokens.positions), device=frequencies.device)
        # With its size given, it need not wait for the device to count.
        length_of_token = torch.repeat_interleave(lengths, lengths, output_size=tokens.layout.num_tokens)
        length_of_row[: len(length_of_token)] = length_of_token.float()
        growth = (self.factor * length_of_row / self.trained_tokens - (self.factor - 1)).clamp(min=1)
        half = len(frequencies)
        powers = torch.arange(half, device=frequencies.device) / (half - 1)
        return frequencies / growth[:, None, None] ** powers


@dataclass(frozen=True, slots=True, eq=False)
class Rotary:
    frequencies: Tensor  # float32 [rotary_dim / 2]: angle per position
    attention_factor: float = 1.0  # of both cosine and sine; YaRN sharpens attention with it
    dynamic: DynamicScaling | None = None

    def at(self, tokens: PackedTokens, dtype: torch.dtype) -> Rotation:
        frequencies = self.frequencies
        if self.dynamic is not None and tokens.layout.max_length > self.dynamic.trained_tokens:
            frequencies = self.dynamic.scale(frequencies, tokens)
        angles = tokens.positions[:, None, None] * frequencies
        return (angles.cos() * self.attention_factor).to(dtype), (angles.sin() * self.attention_factor).to(dtype)


def rotate(heads: Tensor, rotation: Rotation, norm: Norm | None = None) -> Tensor:
    """Normalizes heads [rows, heads, head_dim] if there is a norm, then rotates them. May do so in place."""
    if runs_kernels(heads.device) and (norm is None or isinstance(norm, RMSNorm)):
        from engine_svc.models.kernels.rotary import rotate_in_place

        rotate_in_place(heads, rotation, norm)
        return heads
    return rotate_by_torch(heads if norm is None else norm(heads), rotation)


def rotate_by_torch(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotates components i and i + rotary_dim / 2 of a head as a pair. Components from rotary_dim on stay the same."""
    cosines, sines = rotation
    half = cosines.shape[-1]
    first, second, rest = torch.split(heads, [half, half, heads.shape[-1] - 2 * half], -1)
    rotated = [first * cosines - second * sines, second * cosines + first * sines]
    return torch.cat([*rotated, rest] if rest.shape[-1] else rotated, -1)


def rope_parameters(config: ModelConfig, default_base: float = 10_000.0) -> RopeParameters:
    """The parameters of a model whose layers are all alike, in the form of transformers 5."""
    name = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
    stated = config.get(name) or {}
    if not isinstance(stated, dict):
        config.refuse(f"{name} {stated!r} is not an object")
    base = config.get("rope_theta") or default_base
    partial = config.get("partial_rotary_factor") or 1.0
    return {"rope_theta": base, "partial_rotary_factor": partial, **stated}


def rope_parameters_by_type(config: ModelConfig, layer_type: str) -> RopeParameters | None:
    """What transformers 5 states for one type of layer, or None. Raises CheckpointError if parameters are stated for
    all layers alike: they may be meant for either type."""
    stated = config.get("rope_parameters") or {}
    if not isinstance(stated, dict) or not stated.keys() <= {FULL_ATTENTION, SLIDING_ATTENTION}:
        config.refuse(f"rope_parameters are not by layer type ({FULL_ATTENTION}, {SLIDING_ATTENTION})")
    return stated.get(layer_type) or None


def build_rotary(config: ModelConfig, parameters: RopeParameters, head_dim: int, device: torch.device) -> Rotary:
    """Raises CheckpointError for an unsupported type of scaling, and for parameters that do not suit it."""
    parameters = check_parameters(config, parameters)
    rotary_dim = int(head_dim * (parameters.get("partial_rotary_factor") or 1.0))
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    scale = SCALINGS.get(kind)
    if scale is None:
        config.refuse(f"rotary scaling {kind} is not supported (supported: {', '.join(sorted(SCALINGS))})")
    try:
        frequencies = compute_frequencies(float(parameters["rope_theta"]), rotary_dim)
        frequencies, attention_factor = scale(frequencies, parameters, config)
    except KeyError as error:
        config.refuse(f"rotary scaling {kind} lacks {error}")
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        config.refuse(f"rotary scaling {kind} cannot have {dict(parameters)}: {error}")
    return Rotary(frequencies.to(device), attention_factor)


def check_parameters(config: ModelConfig, parameters: RopeParameters) -> RopeParameters:
    """Returns them without those that are null, which count as missing."""
    stated = {name: value for name, value in parameters.items() if value is not None}
    for name in NUMBERS & stated.keys():
        get_field(stated, name, float, config.path)
    for name in ("rope_type", "type"):
        get_field(stated, name, str, config.path)
    return stated


def compute_frequencies(base: float, rotary_dim: int) -> Tensor:
    """float32 [rotary_dim / 2]"""
    return 1.0 / base ** (torch.arange(0, rotary_dim, 2, dtype=torch.float32) / rotary_dim)


# Each function of scaling returns the frequencies and the attention factor.
def scale_none(frequencies: Tensor, parameters: RopeParameters, config: ModelConfig) -> tuple[Tensor, float]:
    return frequencies, 1.0


def scale_linear(frequencies: Tensor, parameters: RopeParameters, config: ModelConfig) -> tuple[Tensor, float]:
    return frequencies / parameters["factor"], 1.0


def scale_ntk(frequencies: Tensor, parameters: RopeParameters, config: ModelConfig) -> tuple[Tensor, float]:
    """Alibaba's GTE has a larger base, and makes all of it a little slower."""
    if parameters.get("mixed_b") is not None:
        config.refuse("rotary scaling ntk with mixed_b is not supported")
    factor, rotary_dim = float(parameters["factor"]), 2 * len(frequencies)
    base = float(parameters["rope_theta"]) * factor
    return compute_frequencies(base, rotary_dim) / factor ** (2 / rotary_dim), 1.0


def scale_llama3(frequencies: Tensor, parameters: RopeParameters, config: ModelConfig) -> tuple[Tensor, float]:
    """Low frequencies are scaled, high ones are not, and in between there is a ramp."""
    factor = parameters["factor"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    turns = parameters["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * frequencies / factor + kept * frequencies, 1.0


def scale_yarn(frequencies: Tensor, parameters: RopeParameters, config: ModelConfig) -> tuple[Tensor, float]:
    """Peng et al. 2023, arXiv 2309.00071."""
    base, rotary_dim = float(parameters["rope_theta"]), 2 * len(frequencies)
    trained = parameters.get("original_max_position_embeddings") or config.positive("max_position_embeddings")
    factor = parameters.get("factor") or config.positive("max_position_embeddings") / trained

    def find_component(turns: float) -> float:
        return rotary_dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = find_component(parameters.get("beta_fast") or 32), find_component(parameters.get("beta_slow") or 1)
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    ramp = (torch.arange(len(frequencies), dtype=torch.float32) - low) / max(high - low, 0.001)
    kept = 1 - ramp.clamp(0, 1)
    return (1 - kept) * frequencies / factor + kept * frequencies, yarn_attention_factor(parameters, factor)


def yarn_attention_factor(parameters: RopeParameters, factor: float) -> float:
    if parameters.get("attention_factor") is not None:
        return float(parameters["attention_factor"])

    def mscale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    one, all_dimensions = parameters.get("mscale"), parameters.get("mscale_all_dim")
    return mscale(one) / mscale(all_dimensions) if one and all_dimensions else mscale(1.0)


Scaling = Callable[[Tensor, RopeParameters, ModelConfig], tuple[Tensor, float]]

SCALINGS: Mapping[str, Scaling] = {
    "default": scale_none,
    "dynamic": scale_none,  # scales only beyond max_position_embeddings, and the engine takes no longer texts
    "linear": scale_linear,
    "llama3": scale_llama3,
    "ntk": scale_ntk,
    "yarn": scale_yarn,
}
