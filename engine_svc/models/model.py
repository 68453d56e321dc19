"""A checkpoint as something that can be run: the transformer and the head that follows it. Backends load it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine_svc.models.adapters import AdaptedWeights, Adapters
from engine_svc.models.architectures.table import Architecture, architecture_of
from engine_svc.models.heads.embedding import EmbeddingHead
from engine_svc.models.heads.head import Head
from engine_svc.models.heads.m3 import M3Head
from engine_svc.models.heads.multi_vector import MultiVectorHead
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.quantization import NO_QUANT, quantization_of
from engine_svc.models.transformer import Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint, ModelKind


@dataclass(frozen=True, slots=True)
class Model:
    transformer: Transformer
    head: Head
    tasks: Sequence[str]  # a sequence may name one, to run with its adapter
    unused: Sequence[str]  # names of the checkpoint's tensors that the model does not use

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        *,
        dtype: torch.dtype,
        device: torch.device,
        adapter: str = "",
        quantization: str = NO_QUANT,
    ) -> "Model":
        """`quantization` is that of the transformer's linears: no_quant, fp8 or fp4. Raises CheckpointError if the
        architecture is not known or has no head for this kind of model, if the weights do not fit it or are quantized
        in another way, and if the checkpoint does not have the adapter."""
        config = ModelConfig.of(checkpoint, adapter)
        architecture = architecture_of(config)
        weights = open_weights(checkpoint, config, dtype=dtype, device=device, prefix=architecture.prefix)
        transformer = architecture.load(config, weights.quantized(quantization_of(checkpoint, quantization)))
        head = load_head(checkpoint, config, architecture, weights)
        return cls(transformer, head, checkpoint.tasks, weights.unused(architecture.unused))


def open_weights(
    checkpoint: Checkpoint, config: ModelConfig, *, dtype: torch.dtype, device: torch.device, prefix: str
) -> Weights:
    adapters = Adapters.of(config)
    if adapters is None:
        return Weights(checkpoint.folder, dtype=dtype, device=device, prefix=prefix)
    return AdaptedWeights(
        checkpoint.folder, adapters, dtype=dtype, device=device, prefix=prefix, keeps_all=bool(checkpoint.tasks)
    )


def load_head(checkpoint: Checkpoint, config: ModelConfig, architecture: Architecture, weights: Weights) -> Head:
    if checkpoint.m3 is not None:
        return M3Head.load(checkpoint, weights)
    if checkpoint.kind is ModelKind.EMBEDDER:
        return EmbeddingHead.load(checkpoint, weights)
    if checkpoint.kind is ModelKind.MULTI_VECTOR_EMBEDDER:
        return MultiVectorHead.load(checkpoint, weights)
    load = architecture.heads.get(checkpoint.kind)
    if load is None:
        kind = checkpoint.kind.replace("_", " ")
        config.refuse(f"a {config.get('model_type')} as a {kind} is not supported")
    return load(checkpoint, weights)
