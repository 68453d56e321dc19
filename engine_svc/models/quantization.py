"""Determines how a transformer's linears are quantized, from the setting `quantization` or the checkpoint. NVIDIA's
ModelOpt describes its checkpoints in hf_quant_config.json; those of other tools are refused. `Model.load` and the
TensorRT-LLM backend call this. Imports no torch.

The algorithm names are those of ModelOpt's `process_layer_quant_config` (modelopt/torch/export/quant_utils.py of
NVIDIA/Model-Optimizer), the other fields those of `get_quant_config` in the same file.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError, get_field, read_json
from heddle.quantization import NO_QUANT
from heddle.rpc.settings import ConfigurationError

FILE = "hf_quant_config.json"

# Names of attention modules: self_attn or attention in decoders, DeBERTa and MPNet, attn in ModernBERT and Nomic, mixer
# in Jina v3. No other module has such a name.
ATTENTION_MODULES = frozenset({"self_attn", "attention", "attn", "mixer"})


class Format(enum.StrEnum):
    """How the numbers of a weight are stored."""

    FP8 = "fp8"
    FP4 = "fp4"
    INT8 = "int8"


# The formats that `engine_svc.models.quantized_linear` reads, by ModelOpt's names.
FORMATS: Mapping[str, Format] = {
    "FP8": Format.FP8,
    "FP8_PER_CHANNEL_PER_TOKEN": Format.FP8,
    "NVFP4": Format.FP4,
    "W8A16": Format.INT8,
    "W8A8_SQ_PER_CHANNEL": Format.INT8,
}


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a value of the setting quantizes linears."""

    format: Format
    algorithms: Sequence[str]  # of stored checkpoints that the setting accepts
    mlp_only: bool = False  # attention stays in 16 bit
    for_encoders: bool = False
    needs_build: bool = False  # calibration comes first, so loading cannot quantize


FP8, FP4 = (Format.FP8, ("FP8", "FP8_PER_CHANNEL_PER_TOKEN")), (Format.FP4, ("NVFP4",))

# By the value of the setting.
SCHEMES: Mapping[str, Scheme] = {
    "fp8": Scheme(*FP8),
    "fp8_kv": Scheme(*FP8),
    "fp8_mlp_only": Scheme(*FP8, mlp_only=True),
    "fp4": Scheme(*FP4),
    "fp4_kv": Scheme(*FP4),
    "fp4_mlp_only": Scheme(*FP4, mlp_only=True),
    "weights_int8": Scheme(Format.INT8, ("W8A16",), for_encoders=True),
    "smooth_quant": Scheme(Format.INT8, ("W8A8_SQ_PER_CHANNEL",), for_encoders=True, needs_build=True),
}


@dataclass(frozen=True, slots=True)
class Quantization:
    format: Format
    is_stored: bool  # in the checkpoint; otherwise the weights are quantized while they are loaded
    mlp_only: bool = False
    excluded: Sequence[str] = ()  # name patterns of modules that the checkpoint stores in 16 bit
    path: Path | None = None  # of hf_quant_config.json

    def excludes(self, name: str, prefix: str = "") -> bool:
        """Returns whether the linear `name` of the bare model stays in 16 bit. Patterns may or may not have `prefix`,
        that of a model with a head."""
        if self.mlp_only and is_attention(name):
            return True
        return any(fnmatchcase(known, pattern) for pattern in self.excluded for known in (name, prefix + name))


@dataclass(frozen=True, slots=True)
class StoredQuantization:
    path: Path  # of hf_quant_config.json
    content: Mapping[str, Any]  # the whole file
    stated: Mapping[str, Any]  # its field "quantization"
    algorithm: str  # ModelOpt's name, in upper case; "" if the file has none

    @property
    def cache_algorithm(self) -> str:
        """Format of keys and values in a cache, or "" if they are not quantized."""
        return get_field(self.stated, "kv_cache_quant_algo", str, self.path, "").upper()

    @property
    def excluded(self) -> Sequence[str]:
        patterns = get_field(self.stated, "exclude_modules", list, self.path, [])
        if not all(isinstance(pattern, str) for pattern in patterns):
            raise CheckpointError(f"{self.path}: exclude_modules is not a list of names")
        return patterns

    def check_supported(self, supported: Mapping[str, object]) -> None:
        if self.algorithm not in supported:
            named, known = self.algorithm or "none", ", ".join(supported)
            raise CheckpointError(f"{self.path}: quant_algo {named} is not supported (supported: {known})")


def is_attention(name: str) -> bool:
    """Returns whether the linear belongs to attention, not to a feed-forward network."""
    return not ATTENTION_MODULES.isdisjoint(name.split(".")[:-1])


def find_scheme(setting: str) -> Scheme | None:
    """Returns None for NO_QUANT. Raises ConfigurationError for an unsupported setting."""
    if setting == NO_QUANT:
        return None
    if setting not in SCHEMES:
        known = ", ".join((NO_QUANT, *SCHEMES))
        raise ConfigurationError(f"quantization {setting} is not supported (supported: {known})")
    return SCHEMES[setting]


def find_quantization(checkpoint: Checkpoint, setting: str) -> Quantization | None:
    """Returns None for weights in 16 bit or wider. `setting` is NO_QUANT or one of SCHEMES. Raises CheckpointError if
    the checkpoint is quantized in an unsupported way or contradicts the setting, or if the setting needs a build."""
    asked = find_scheme(setting)
    stored = read_stored_quantization(checkpoint)
    if stored is None:
        return None if asked is None else plan_quantization(checkpoint, setting, asked)
    stored.check_supported(FORMATS)
    if asked is not None and stored.algorithm not in asked.algorithms:
        raise CheckpointError(f"{stored.path}: the weights are already {stored.algorithm} and cannot become {setting}")
    return Quantization(
        FORMATS[stored.algorithm],
        is_stored=True,
        mlp_only=asked is not None and asked.mlp_only,
        excluded=stored.excluded,
        path=stored.path,
    )


def plan_quantization(checkpoint: Checkpoint, setting: str, scheme: Scheme) -> Quantization:
    if scheme.needs_build:
        raise CheckpointError(
            f"{checkpoint.folder}: {setting} depends on calibration; make a build with `heddle build --model MODEL "
            f"--quantization {setting}`, and load that"
        )
    return Quantization(scheme.format, is_stored=False, mlp_only=scheme.mlp_only)


def quantizes_cache(checkpoint: Checkpoint, setting: str) -> bool:
    """Returns whether the setting or the checkpoint quantizes keys and values in a cache."""
    stored = read_stored_quantization(checkpoint)
    return setting.endswith("_kv") or (stored is not None and bool(stored.cache_algorithm))


def read_stored_quantization(checkpoint: Checkpoint) -> StoredQuantization | None:
    """None for weights that are not quantized. Raises CheckpointError for those that ModelOpt did not write."""
    path = checkpoint.folder / FILE
    if not path.is_file():
        other = checkpoint.config.get("quantization_config")
        if other:
            method = other.get("quant_method") if isinstance(other, Mapping) else None
            raise CheckpointError(
                f"{checkpoint.folder / 'config.json'}: quantized weights ({method or 'no quant_method'}) without a "
                f"{FILE} are not supported"
            )
        return None
    content = read_json(path)
    stated = get_field(content, "quantization", dict, path, {})
    return StoredQuantization(path, content, stated, get_field(stated, "quant_algo", str, path, "").upper())
