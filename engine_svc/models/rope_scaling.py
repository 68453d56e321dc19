"""The frequencies of rotary positions, as configurations state them: base, and how they are stretched for long texts.

transformers 5 has one mapping `rope_parameters`, or one for each kind of layer; transformers 4 had `rope_theta` and
`rope_scaling` beside each other. The formulas are those of transformers.modeling_rope_utils.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from engine_svc.models.model_config import ModelConfig
from engine_svc.models.rotary import Rotary
from heddle.checkpoint.json_files import get_field

Parameters = Mapping[str, Any]

# The parameters that are, of all forms of scaling.
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


def rope_parameters(config: ModelConfig, base_default: float = 10_000.0) -> Parameters:
    """Of a model whose layers all have the same, in the form of transformers 5."""
    name = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
    stated = config.get(name) or {}
    if not isinstance(stated, dict):
        config.refuse(f"{name} {stated!r} is not an object")
    base = config.get("rope_theta") or base_default
    rotated = config.get("partial_rotary_factor") or 1.0
    return {"rope_theta": base, "partial_rotary_factor": rotated, **stated}


def rotary_of(config: ModelConfig, parameters: Parameters, head_dim: int, device: torch.device) -> Rotary:
    """Raises CheckpointError for a form of scaling that is not here, and for parameters that it cannot have."""
    parameters = checked(config, parameters)
    rotated = int(head_dim * (parameters.get("partial_rotary_factor") or 1.0))
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    scale = SCALINGS.get(kind)
    if scale is None:
        config.refuse(f"rotary scaling {kind} is not supported (supported: {', '.join(sorted(SCALINGS))})")
    try:
        frequencies, sharpness = scale(frequencies_of(float(parameters["rope_theta"]), rotated), parameters, config)
    except KeyError as error:
        config.refuse(f"rotary scaling {kind} lacks {error}")
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        config.refuse(f"rotary scaling {kind} cannot have {dict(parameters)}: {error}")
    return Rotary(frequencies.to(device), sharpness)


def checked(config: ModelConfig, parameters: Parameters) -> Parameters:
    """Without those that are null, which count as missing."""
    stated = {name: value for name, value in parameters.items() if value is not None}
    for name in NUMBERS & stated.keys():
        get_field(stated, name, float, config.path)
    for name in ("rope_type", "type"):
        get_field(stated, name, str, config.path)
    return stated


def frequencies_of(base: float, rotated: int) -> Tensor:
    """float32 [rotated / 2]"""
    return 1.0 / base ** (torch.arange(0, rotated, 2, dtype=torch.float32) / rotated)


def unscaled(frequencies: Tensor, parameters: Parameters, config: ModelConfig) -> tuple[Tensor, float]:
    return frequencies, 1.0


def linear(frequencies: Tensor, parameters: Parameters, config: ModelConfig) -> tuple[Tensor, float]:
    return frequencies / parameters["factor"], 1.0


def ntk(frequencies: Tensor, parameters: Parameters, config: ModelConfig) -> tuple[Tensor, float]:
    """Of Alibaba's GTE: a larger base, and all of it a little slower."""
    if parameters.get("mixed_b") is not None:
        config.refuse("rotary scaling ntk with mixed_b is not supported")
    factor, dimension = float(parameters["factor"]), 2 * len(frequencies)
    base = float(parameters["rope_theta"]) * factor
    return frequencies_of(base, dimension) / factor ** (2 / dimension), 1.0


def llama3(frequencies: Tensor, parameters: Parameters, config: ModelConfig) -> tuple[Tensor, float]:
    """What turns slowly is stretched, what turns fast is not, and in between there is a ramp."""
    factor = parameters["factor"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    turns = parameters["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * frequencies / factor + kept * frequencies, 1.0


def yarn(frequencies: Tensor, parameters: Parameters, config: ModelConfig) -> tuple[Tensor, float]:
    """Peng et al. 2023, arXiv 2309.00071."""
    base, dimension = float(parameters["rope_theta"]), 2 * len(frequencies)
    trained = parameters.get("original_max_position_embeddings") or config.positive("max_position_embeddings")
    factor = parameters.get("factor") or config.positive("max_position_embeddings") / trained

    def component_of(turns: float) -> float:
        return dimension * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = component_of(parameters.get("beta_fast") or 32), component_of(parameters.get("beta_slow") or 1)
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dimension - 1)
    ramp = (torch.arange(len(frequencies), dtype=torch.float32) - low) / max(high - low, 0.001)
    kept = 1 - ramp.clamp(0, 1)
    return (1 - kept) * frequencies / factor + kept * frequencies, yarn_sharpness(parameters, factor)


def yarn_sharpness(parameters: Parameters, factor: float) -> float:
    if parameters.get("attention_factor") is not None:
        return float(parameters["attention_factor"])

    def growth(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    one, all_dimensions = parameters.get("mscale"), parameters.get("mscale_all_dim")
    return growth(one) / growth(all_dimensions) if one and all_dimensions else growth(1.0)


Scaling = Callable[[Tensor, Parameters, ModelConfig], tuple[Tensor, float]]

SCALINGS: Mapping[str, Scaling] = {
    "default": unscaled,
    "dynamic": unscaled,  # stretches beyond max_position_embeddings alone, which is where we end
    "linear": linear,
    "llama3": llama3,
    "ntk": ntk,
    "yarn": yarn,
}
