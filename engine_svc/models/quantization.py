"""The quantization of a transformer's linears: what the setting `quantization` asks for, or what the checkpoint stores.
NVIDIA's ModelOpt describes the quantized checkpoints that it writes in hf_quant_config.json; those of other tools are
refused. `Model.load` and the TensorRT-LLM backend call this. Imports no torch.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError, get_field, read_json

FILE = "hf_quant_config.json"

NO_QUANT = "no_quant"  # the setting that leaves the weights as the checkpoint stores them


class Format(enum.StrEnum):
    """The values are those of the setting."""

    FP8 = "fp8"
    FP4 = "fp4"


# The formats that `engine_svc.models.quantized_linear` reads, by ModelOpt's names.
FORMATS: Mapping[str, Format] = {
    "FP8": Format.FP8,
    "FP8_PER_CHANNEL_PER_TOKEN": Format.FP8,
    "NVFP4": Format.FP4,
}


@dataclass(frozen=True, slots=True)
class Quantization:
    format: Format
    is_stored: bool  # in the checkpoint; otherwise the weights are quantized while they are loaded


@dataclass(frozen=True, slots=True)
class StoredQuantization:
    path: Path  # of hf_quant_config.json
    content: Mapping[str, Any]  # the whole file
    stated: Mapping[str, Any]  # its field "quantization"
    algorithm: str  # ModelOpt's name, in upper case; "" if the file has none

    def check_supported(self, supported: Mapping[str, object]) -> None:
        if self.algorithm not in supported:
            named, known = self.algorithm or "none", ", ".join(supported)
            raise CheckpointError(f"{self.path}: quant_algo {named} is not supported (supported: {known})")


def find_quantization(checkpoint: Checkpoint, setting: str) -> Quantization | None:
    """None for weights in 16 bit or wider. `setting` is NO_QUANT or the value of a Format. Raises CheckpointError if
    the checkpoint is quantized in another way than the setting says, or in an unsupported way."""
    asked = None if setting == NO_QUANT else Format(setting)
    stored = read_stored_quantization(checkpoint)
    if stored is None:
        return None if asked is None else Quantization(asked, is_stored=False)
    stored.check_supported(FORMATS)
    if asked not in (None, FORMATS[stored.algorithm]):
        raise CheckpointError(f"{stored.path}: the weights are already {stored.algorithm} and cannot become {asked}")
    return Quantization(FORMATS[stored.algorithm], is_stored=True)


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
