"""Checks whether TensorRT-LLM can serve a checkpoint on this machine. It may serve only what it computes exactly as
engine_svc.models does. For the rest `--backend auto` takes torch, and `--backend tensorrt_llm` refuses to start. Runs
before the pod opens a port, and does not import TensorRT-LLM.
"""

from engine_svc.backends.tensorrt_llm.quantization import quantization_of
from engine_svc.backends.tensorrt_llm.versions import installed_api
from engine_svc.device import Device, dotted
from engine_svc.models.architectures.decoder import FAMILIES
from engine_svc.models.architectures.decoder_attention import read_window
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.quantization import NO_QUANT, find_quantization
from engine_svc.models.rotary import rope_parameters
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint
from heddle.rpc.settings import ConfigurationError

# Its fused attention needs Ampere.
CAPABILITY_MIN = (8, 0)

# The model_type of a checkpoint, and the one that TensorRT-LLM has for it.
MODEL_TYPES = {"llama": "llama", "llama_bidirec": "llama", "mistral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3"}

# The forms of rotary scaling that it computes as transformers does; for other model types there is only "default".
ROPE_TYPES = {"llama": ("default", "llama3")}


def check_fitness(settings: EngineSettings, checkpoint: Checkpoint, device: Device) -> None:
    """Raises ConfigurationError with the first reason against it, in one line."""
    installed_api()
    check_settings(settings, checkpoint)
    check_architecture(checkpoint)
    check_gpu(checkpoint, device)


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
        served = ", ".join(MODEL_TYPES)
        raise ConfigurationError(f"a {model_type} is not supported (supported: {served})")
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
    quantization = quantization_of(checkpoint)
    needed = CAPABILITY_MIN if quantization is None else quantization.capability
    if device.capability < needed:
        what = "it" if quantization is None else f"{quantization.algorithm} in it"
        raise ConfigurationError(f"{what} needs compute capability {dotted(needed)}, not {dotted(device.capability)}")
