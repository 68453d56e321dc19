"""Which versions of TensorRT-LLM, GPUs and checkpoints the backend supports. It serves only what TensorRT-LLM computes
exactly as `engine_svc.models` does. For everything else `--backend auto` takes torch, and `--backend tensorrt_llm`
refuses to start. The check runs before the pod opens a port, and does not import TensorRT-LLM: that needs a GPU driver
and takes long.
"""

import enum
import importlib.metadata
import math
import re
from collections.abc import Mapping

from engine_svc.device import FP4, FP8, Capability, Device, format_capability
from engine_svc.models.architectures.decoder import FAMILIES
from engine_svc.models.architectures.decoder_attention import read_window
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.quantization import StoredQuantization, find_quantization, read_stored_quantization
from engine_svc.models.rotary import rope_parameters
from engine_svc.models.stored_tensors import open_stored_tensors
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint
from heddle.quantization import NO_QUANT
from heddle.rpc.settings import ConfigurationError

Version = tuple[int, int, int, float]  # the last is the number of a release candidate, or infinity for a release

PACKAGE = "tensorrt_llm"
VERSION_PATTERN = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.?rc(\d+))?")
SUPPORTED_VERSIONS = "1.2, and 1.3.0rc22 to 1.4"


class Api(enum.Enum):
    """The method of LLM that returns hidden states."""

    GENERATE = "generate_async"  # the LLM queues requests for an executor
    ENCODE = "encode"  # one forward pass in the calling thread


# The first version that has the API, the version before which it ends, and the API.
APIS: tuple[tuple[Version, Version, Api], ...] = (
    ((1, 2, 0, math.inf), (1, 3, 0, 0), Api.GENERATE),
    ((1, 3, 0, 22), (1, 5, 0, 0), Api.ENCODE),
)

# TensorRT-LLM's fused attention needs Ampere.
CAPABILITY_MIN: Capability = (8, 0)

# The model_type of a checkpoint, and the one that TensorRT-LLM has for it.
MODEL_TYPES = {"llama": "llama", "llama_bidirec": "llama", "mistral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3"}

# The forms of rotary scaling that TensorRT-LLM computes as transformers does; other model types only have "default".
ROPE_TYPES = {"llama": ("default", "llama3")}

# The compute capability that each quantization algorithm needs, by ModelOpt's name.
QUANTIZATION_CAPABILITIES: Mapping[str, Capability] = {
    "FP8": FP8,
    "FP8_PB_WO": (9, 0),
    "FP8_PER_CHANNEL_PER_TOKEN": (9, 0),
    "NVFP4": FP4,
}


def check_support(settings: EngineSettings, checkpoint: Checkpoint, device: Device) -> None:
    """Raises ConfigurationError with the first reason against TensorRT-LLM, in one line."""
    installed_api()
    check_settings(settings, checkpoint)
    check_architecture(checkpoint)
    check_gpu(checkpoint, device)
    check_names(checkpoint)


def installed_api() -> Api:
    """Raises ConfigurationError if the package is missing or its version is not supported."""
    version = installed_version()
    if version is None:
        raise ConfigurationError(f"tensorrt-llm is not installed (supported: {SUPPORTED_VERSIONS})")
    return choose_api(version)


def installed_version() -> str | None:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def choose_api(version: str) -> Api:
    """Raises ConfigurationError for a version that is not supported."""
    match = VERSION_PATTERN.match(version)
    if match is not None:
        major, minor, patch, candidate = match.groups()
        parsed = int(major), int(minor), int(patch or 0), math.inf if candidate is None else int(candidate)
        for first, end, api in APIS:
            if first <= parsed < end:
                return api
    raise ConfigurationError(f"tensorrt-llm {version} is not supported (supported: {SUPPORTED_VERSIONS})")


def check_settings(settings: EngineSettings, checkpoint: Checkpoint) -> None:
    if settings.passes > 1:
        raise ConfigurationError(f"it runs one pass at a time, not {settings.passes}")
    if settings.dtype == "float32":
        raise ConfigurationError("it computes in bfloat16 or float16, not in float32")
    if settings.adapter or checkpoint.tasks:
        raise ConfigurationError("adapters are not supported")
    if settings.quantization != NO_QUANT:
        quantization = find_quantization(checkpoint, settings.quantization)
        if quantization is None or not quantization.is_stored:
            raise ConfigurationError("it does not quantize weights; it takes a checkpoint that ModelOpt has quantized")


def check_architecture(checkpoint: Checkpoint) -> None:
    config = ModelConfig.of(checkpoint)
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise ConfigurationError(f"a {model_type} is not supported (supported: {', '.join(MODEL_TYPES)})")
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        config.refuse(f"hidden_act {config.get('hidden_act')} is not supported")
    if MODEL_TYPES[model_type] != "llama":
        for name in ("attention_bias", "mlp_bias"):
            config.require(name, False)
    check_rope(config, MODEL_TYPES[model_type])
    check_windows(config, checkpoint.sequence_tokens_max)


def check_rope(config: ModelConfig, model_type: str) -> None:
    parameters = rope_parameters(config)
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    if kind not in ROPE_TYPES.get(model_type, ("default",)):
        config.refuse(f"rotary scaling {kind} is not supported")
    if parameters["partial_rotary_factor"] not in (None, 1.0):
        config.refuse("a partial_rotary_factor is not supported")


def check_windows(config: ModelConfig, sequence_tokens_max: int) -> None:
    """A window as long as the longest sequence has no effect, and is accepted."""
    for layer_type in set(FAMILIES[config.get("model_type")].layer_types(config)):
        window_left, _ = read_window(config, layer_type)
        if window_left is not None and window_left < sequence_tokens_max - 1:
            config.refuse(f"layers that see {window_left + 1} of {sequence_tokens_max} tokens are not supported")


def check_gpu(checkpoint: Checkpoint, device: Device) -> None:
    if device.kind != "cuda":
        raise ConfigurationError("it needs an NVIDIA GPU")
    quantization = read_supported_quantization(checkpoint)
    needed = CAPABILITY_MIN if quantization is None else QUANTIZATION_CAPABILITIES[quantization.algorithm]
    if device.capability < needed:
        what = "it" if quantization is None else f"{quantization.algorithm} in it"
        raise ConfigurationError(
            f"{what} needs compute capability {format_capability(needed)}, not {format_capability(device.capability)}"
        )


def check_names(checkpoint: Checkpoint) -> None:
    """TensorRT-LLM reads the weight files itself, and does not strip the prefixes of torch.compile and DataParallel."""
    for name, tensor in open_stored_tensors(checkpoint.folder).items():
        if tensor.name != name:
            raise ConfigurationError(
                f"{tensor.path}: tensor {tensor.name} should be named {name}, as in the folders that heddle build makes"
            )


def read_supported_quantization(checkpoint: Checkpoint) -> StoredQuantization | None:
    """How ModelOpt has quantized the weights, which TensorRT-LLM loads as they are. None if they are not quantized.
    Raises CheckpointError for an unsupported algorithm."""
    stored = read_stored_quantization(checkpoint)
    if stored is not None:
        stored.check_supported(QUANTIZATION_CAPABILITIES)
    return stored
