"""Which GPU TensorRT-LLM needs for a quantized checkpoint of NVIDIA's ModelOpt, and a description of the checkpoint
that every version of TensorRT-LLM reads. It loads the weights as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine_svc.device import Capability
from engine_svc.hardware import FP4, FP8
from engine_svc.models.quantization import read_stored_quantization
from heddle.checkpoint import Checkpoint

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
    described: Mapping[str, Any]  # the content of hf_quant_config.json, for TensorRT-LLM

    @property
    def capability(self) -> Capability:
        return CAPABILITIES[self.algorithm]


def quantization_of(checkpoint: Checkpoint) -> Quantization | None:
    """None for weights that are not quantized. Raises CheckpointError for an unsupported algorithm."""
    stored = read_stored_quantization(checkpoint)
    if stored is None:
        return None
    stored.check_supported(CAPABILITIES)
    # There is no KV cache to quantize.
    passed_on = {
        **stored.stated,
        "quant_algo": NAMES_OF_ENGINE.get(stored.algorithm, stored.algorithm),
        "kv_cache_quant_algo": None,
    }
    return Quantization(stored.algorithm, {**stored.content, "quantization": passed_on})
