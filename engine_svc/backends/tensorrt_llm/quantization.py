"""Reads hf_quant_config.json, which describes the quantized checkpoints of NVIDIA's ModelOpt. TensorRT-LLM loads their
weights as they are. This module says which GPU they need, and writes the description so that every version reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine_svc.device import Capability
from engine_svc.hardware import FP4, FP8
from heddle.checkpoint import Checkpoint
from heddle.checkpoint_files import CheckpointError, field_of, read_json

FILE = "hf_quant_config.json"

# The compute capability that each algorithm needs, by ModelOpt's name for it.
CAPABILITIES: Mapping[str, Capability] = {
    "FP8": FP8,
    "FP8_PB_WO": (9, 0),
    "FP8_PER_CHANNEL_PER_TOKEN": (9, 0),
    "NVFP4": FP4,
}

# TensorRT-LLM's names where they differ. It reads ModelOpt's own names only in lower case.
NAMES_OF_ENGINE = {"FP8_PB_WO": "FP8_BLOCK_SCALES"}


@dataclass(frozen=True, slots=True)
class Quantization:
    algorithm: str  # ModelOpt's name, in upper case
    described: Mapping[str, Any]  # the whole of the file, for TensorRT-LLM

    @property
    def capability(self) -> Capability:
        return CAPABILITIES[self.algorithm]


def quantization_of(checkpoint: Checkpoint) -> Quantization | None:
    """None for weights that are not quantized. Raises CheckpointError for an unsupported algorithm."""
    path = checkpoint.folder / FILE
    if not path.is_file():
        if checkpoint.config.get("quantization_config"):
            raise CheckpointError(f"{checkpoint.folder}: quantized weights without a {FILE} are not supported")
        return None
    content = read_json(path)
    stated = field_of(content, "quantization", dict, path, {})
    algorithm = field_of(stated, "quant_algo", str, path, "").upper()
    if algorithm not in CAPABILITIES:
        named = algorithm or "none"
        raise CheckpointError(f"{path}: quant_algo {named} is not supported (supported: {', '.join(CAPABILITIES)})")
    # There is no KV cache to quantize.
    passed_on = {
        **stated,
        "quant_algo": NAMES_OF_ENGINE.get(algorithm, algorithm),
        "kv_cache_quant_algo": None,
    }
    return Quantization(algorithm, {**content, "quantization": passed_on})
