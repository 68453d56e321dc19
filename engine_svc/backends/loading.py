"""Chooses, checks and loads the backend. Imports a model library only if it is needed."""

import logging
import math
from collections.abc import Mapping
from typing import Literal

from engine_svc.backends import Backend
from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.device import Device, find_device, is_decoder
from engine_svc.models.quantization import (
    SCHEMES,
    Format,
    find_scheme,
    is_attention,
    quantizes_cache,
    read_stored_quantization,
)
from engine_svc.sequences import Output
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.json_files import CheckpointError
from heddle.quantization import NO_QUANT
from heddle.rpc.settings import ConfigurationError

log = logging.getLogger(__name__)

# Tensor names in the log line. A checkpoint with the head of another task may have hundreds of unused tensors.
UNUSED_NAMES_MAX = 8

SIMULATED_OUTPUTS: Mapping[ModelKind, tuple[Output, ...]] = {
    ModelKind.EMBEDDER: (Output.VECTOR, Output.TOKEN_VECTORS),
    ModelKind.MULTI_VECTOR_EMBEDDER: (Output.TOKEN_VECTORS,),
    ModelKind.SPARSE_EMBEDDER: (Output.SPARSE_VECTOR,),
    ModelKind.RERANKER: (Output.LOGITS,),
    ModelKind.CLASSIFIER: (Output.LOGITS,),
    ModelKind.TOKEN_CLASSIFIER: (Output.TOKEN_LOGITS,),
}
M3_OUTPUTS = (Output.SPARSE_VECTOR, Output.COLBERT_VECTORS)

# For small passes and the workspaces of libraries. Larger passes are split when the memory is full.
WORKING_BYTES = 512 << 20

# Bytes of a number in a weight, and of one in a quantized linear, including its share of the scales.
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
QUANTIZED_BYTES: Mapping[Format, float] = {Format.FP8: 1.0, Format.FP4: 0.5 + 1 / 16, Format.INT8: 1.0}


def choose_backend(
    settings: EngineSettings, checkpoint: Checkpoint, device: Device
) -> Literal["torch", "tensorrt_llm", "simulated"]:
    """Decides `--backend auto`. Raises ConfigurationError if the settings ask for TensorRT-LLM and it cannot serve the
    checkpoint."""
    if settings.backend in ("torch", "simulated"):
        return settings.backend
    from engine_svc.backends.tensorrt_llm.support import check_support

    try:
        check_support(settings, checkpoint, device)
    except ConfigurationError as error:
        if settings.backend == "tensorrt_llm":
            raise ConfigurationError(f"backend tensorrt_llm: {error}") from None
        log.info("backend auto: torch, not tensorrt_llm: %s", error)
        return "torch"
    log.info("backend %s: tensorrt_llm, which serves this checkpoint on this GPU", settings.backend)
    return "tensorrt_llm"


def check_loadable(settings: EngineSettings, checkpoint: Checkpoint) -> None:
    """Raises CheckpointError where `load_backend` would, but reads no weights, so that it can run before the pod opens
    a port. Logs the tensors that the model does not use, as transformers does."""
    if settings.backend == "simulated":
        return
    import torch

    if settings.backend == "tensorrt_llm":
        from engine_svc.backends.tensorrt_llm.backend import load_head

        load_head(checkpoint, torch.device("meta"), torch.float32)
        return

    from engine_svc.models.model import Model

    check_quantizable(settings, checkpoint)
    if quantizes_cache(checkpoint, settings.quantization):
        log.info(
            "%s: the quantization of keys and values has no effect: the torch backend keeps no cache of them, and "
            "computes attention from unquantized ones",
            checkpoint.name,
        )
    model = Model.load(
        checkpoint,
        dtype=torch.float32,
        device=torch.device("meta"),
        adapter=settings.adapter,
        quantization=settings.quantization,
    )
    if model.unused:
        more = f" and {len(model.unused) - UNUSED_NAMES_MAX} more" if len(model.unused) > UNUSED_NAMES_MAX else ""
        names = ", ".join(model.unused[:UNUSED_NAMES_MAX])
        log.warning("%s: %s does not use the tensors %s%s", checkpoint.folder, checkpoint.architecture, names, more)


def check_quantizable(settings: EngineSettings, checkpoint: Checkpoint) -> None:
    """Raises CheckpointError if the settings would quantize an encoder, except to int8 on a CPU. Encoders are small and
    lose most accuracy."""
    from engine_svc.models.architectures.decoder import FAMILIES

    scheme = find_scheme(settings.quantization)
    if scheme is None or is_decoder(checkpoint):
        return
    kind = checkpoint.config.get("model_type")
    refused = f"{checkpoint.folder}: --quantization {settings.quantization} is for decoders, not for {kind}"
    if not scheme.for_encoders:
        encoders = ", ".join(name for name, other in SCHEMES.items() if other.for_encoders)
        raise CheckpointError(f"{refused} (supported: {', '.join(FAMILIES)}; for encoders on a CPU: {encoders})")
    if find_device(settings.device).kind != "cpu":
        raise CheckpointError(f"{refused} on a GPU; leave it out, or add --device cpu")


def check_memory(device: Device, checkpoint: Checkpoint, dtype: str, quantization: str = NO_QUANT) -> None:
    """Raises ConfigurationError if the weights do not fit into the memory of the GPU, from the headers of their files.
    Without it, loading would fail after minutes, with a message that says less. `dtype` must not be auto."""
    if device.kind != "cuda":
        return
    import torch

    weights = count_weight_bytes(checkpoint, dtype, quantization)
    free, total = torch.cuda.mem_get_info(device.index)
    if weights + WORKING_BYTES > free:
        raise ConfigurationError(
            f"{checkpoint.name} does not fit into the memory of {device}: its weights take {format_gib(weights)} in "
            f"{dtype if quantization == NO_QUANT else quantization}, and {format_gib(free)} of {format_gib(total)} "
            "are free"
        )


def count_weight_bytes(checkpoint: Checkpoint, dtype: str, quantization: str = NO_QUANT) -> int:
    """Bytes on the device. Tensors of other types than FLOAT_TYPES are stored quantized and are loaded as they are."""
    from engine_svc.models.architectures.registry import find_architecture
    from engine_svc.models.model_config import ModelConfig
    from engine_svc.models.stored_tensors import FLOAT_TYPES, open_stored_tensors

    config = {name: value for name, value in checkpoint.config.items() if name != "quantization_config"}
    architecture = find_architecture(ModelConfig(config, checkpoint.folder / "config.json"))
    unused = (*architecture.unused, *(architecture.prefix + name for name in architecture.unused))
    scheme = find_scheme(quantization)
    if scheme is not None and read_stored_quantization(checkpoint) is not None:
        scheme = None  # linears that such a checkpoint stores in 16 bit stay in 16 bit
    total = 0.0
    for name, tensor in open_stored_tensors(checkpoint.folder).items():
        if name.startswith(unused):
            continue
        number_bytes = BYTES[dtype]
        if tensor.data_type not in FLOAT_TYPES:
            number_bytes = 1.0
        elif scheme is not None and len(tensor.shape) > 1 and "embed" not in name:
            is_excluded = scheme.mlp_only and is_attention(name.removesuffix(".weight"))
            number_bytes = number_bytes if is_excluded else QUANTIZED_BYTES[scheme.format]
        total += math.prod(tensor.shape) * number_bytes
    return int(total)


def format_gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def load_backend(settings: EngineSettings, checkpoint: Checkpoint) -> Backend:
    """`settings.backend` must not be auto. Raises CheckpointError for a checkpoint that the backend cannot run."""
    if settings.backend == "simulated":
        return SimulatedBackend(
            outputs=frozenset(SIMULATED_OUTPUTS[checkpoint.kind] + (M3_OUTPUTS if checkpoint.m3 else ())),
            dimension=checkpoint.dimension or len(checkpoint.labels),
            sparse_dimension=checkpoint.vocabulary_size,
            fixed_us=settings.simulated_fixed_us,
            per_token_ns=settings.simulated_per_token_ns,
        )
    if settings.backend == "tensorrt_llm":
        from engine_svc.backends.tensorrt_llm.backend import TensorRTLLMBackend

        return TensorRTLLMBackend(
            checkpoint,
            dtype=settings.dtype,
            batch_tokens_max=settings.batch_tokens_max,
            batch_items_max=settings.batch_items_max,
        )
    from engine_svc.backends.torch_backend import TorchBackend

    return TorchBackend(
        checkpoint,
        dtype=settings.dtype,
        threads=settings.threads,
        device=settings.device,
        adapter=settings.adapter,
        quantization=settings.quantization,
    )
