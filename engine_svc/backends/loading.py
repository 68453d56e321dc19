"""Loads the backend that the settings name, in the worker's thread. Imports a model library only if it is needed."""

import logging
from collections.abc import Mapping

from engine_svc.backends.backend import Backend
from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.batch import Output
from engine_svc.models.quantization import NO_QUANT
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.json_files import CheckpointError

log = logging.getLogger(__name__)

# Tensor names in the log line. A checkpoint with the head of another task may have hundreds of unused tensors.
UNUSED_NAMED_MAX = 8

SIMULATED_OUTPUTS: Mapping[ModelKind, tuple[Output, ...]] = {
    ModelKind.EMBEDDER: (Output.VECTOR, Output.TOKEN_VECTORS),
    ModelKind.MULTI_VECTOR_EMBEDDER: (Output.TOKEN_VECTORS,),
    ModelKind.SPARSE_EMBEDDER: (Output.SPARSE_VECTOR,),
    ModelKind.RERANKER: (Output.LOGITS,),
    ModelKind.CLASSIFIER: (Output.LOGITS,),
    ModelKind.TOKEN_CLASSIFIER: (Output.TOKEN_LOGITS,),
}
M3_OUTPUTS = (Output.SPARSE_VECTOR, Output.COLBERT_VECTORS)


def check_loadable(settings: EngineSettings, checkpoint: Checkpoint) -> None:
    """Raises CheckpointError as `load_backend` would, but reads no weights, so that it can run before the pod opens a
    port. Logs the tensors that the model does not use, as transformers does."""
    if settings.backend == "simulated":
        return
    import torch

    if settings.backend == "tensorrt_llm":
        from engine_svc.backends.tensorrt_llm.backend import load_head_of

        load_head_of(checkpoint, torch.device("meta"), torch.float32)
        return

    from engine_svc.models.model import Model

    check_quantizable(settings, checkpoint)
    model = Model.load(
        checkpoint,
        dtype=torch.float32,
        device=torch.device("meta"),
        adapter=settings.adapter,
        quantization=settings.quantization,
    )
    if model.unused:
        more = f" and {len(model.unused) - UNUSED_NAMED_MAX} more" if len(model.unused) > UNUSED_NAMED_MAX else ""
        names = ", ".join(model.unused[:UNUSED_NAMED_MAX])
        log.warning("%s: %s does not use the tensors %s%s", checkpoint.folder, checkpoint.architecture, names, more)


def check_quantizable(settings: EngineSettings, checkpoint: Checkpoint) -> None:
    """Raises CheckpointError if the settings would quantize an encoder: those are small, and lose most accuracy."""
    from engine_svc.models.architectures.decoder import FAMILIES

    model_type = checkpoint.config.get("model_type")
    if settings.quantization != NO_QUANT and model_type not in FAMILIES:
        raise CheckpointError(
            f"{checkpoint.folder}: --quantization {settings.quantization} is for decoders, not for {model_type} "
            f"(supported: {', '.join(FAMILIES)})"
        )


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
