"""Loads a checkpoint as a model that can be run: the transformer and the head that follows it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine_svc.models.architectures.registry import Architecture, find_architecture
from engine_svc.models.heads.embedding import EmbeddingHead, MultiVectorHead
from engine_svc.models.heads.head import Head
from engine_svc.models.heads.m3 import M3Head
from engine_svc.models.lora import LoraConfig, LoraWeights
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.quantization import find_quantization
from engine_svc.models.transformer import Transformer
from engine_svc.models.weights import Observe, Weights
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.quantization import NO_QUANT


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
        observe: Observe | None = None,
    ) -> "Model":
        """`quantization` applies to the transformer's linears, and `observe` is called with each. Raises
        CheckpointError if the architecture is unknown or has no head for this kind of model, if the weights do not fit
        it or are quantized differently, and if the checkpoint lacks the adapter."""
        config = ModelConfig.of(checkpoint, adapter)
        architecture = find_architecture(config)
        weights = open_weights(checkpoint, config, dtype=dtype, device=device, prefix=architecture.prefix)
        quantized = weights.with_quantization(find_quantization(checkpoint, quantization), observe)
        transformer = architecture.load(config, quantized)
        head = load_head(checkpoint, config, architecture, weights)
        return cls(transformer, head, checkpoint.tasks, weights.unused(architecture.unused))


def open_weights(
    checkpoint: Checkpoint, config: ModelConfig, *, dtype: torch.dtype, device: torch.device, prefix: str
) -> Weights:
    lora = LoraConfig.of(config)
    if lora is None:
        return Weights(checkpoint.folder, dtype=dtype, device=device, prefix=prefix)
    return LoraWeights(
        checkpoint.folder, lora, dtype=dtype, device=device, prefix=prefix, keep_all=bool(checkpoint.tasks)
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
