"""What an engine pod tells others about its model (heddle.v1.Model)."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from engine_svc.backends.backend import Backend
from engine_svc.device import Device
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.v1 import model_pb2

# Whose configurations mean two token types where they say nothing of them: they are loaded so.
TWO_TYPES = frozenset({"albert", "bert", "camembert", "electra", "roberta", "xlm-roberta"})


def described(
    checkpoint: Checkpoint, backend: Backend, device: Device, settings: EngineSettings, batch_tokens_max: int
) -> model_pb2.Model:
    return model_pb2.Model(
        name=checkpoint.name,
        kind=f"MODEL_KIND_{checkpoint.kind.name}",
        tokenizer_fingerprint=checkpoint.tokenizer_fingerprint,
        vocabulary_size=checkpoint.vocabulary_size,
        sequence_tokens_max=checkpoint.sequence_tokens_max,
        dimension=checkpoint.dimension,
        labels=checkpoint.labels,
        pooling="+".join(mode.value for mode in checkpoint.pooling),
        data_type=backend.data_type,
        revision=checkpoint.revision,
        backend=settings.backend,
        device="" if settings.backend == "simulated" else device.kind,
        multi_label=checkpoint.multi_label,
        prompt_names=sorted(checkpoint.prompts),
        batch_tokens_max=batch_tokens_max,
        uses_type_ids=types_of(checkpoint.config) > 1,
        matryoshka=checkpoint.matryoshka,
        embedding_kinds=embedding_kinds_of(checkpoint),
        tasks=checkpoint.tasks,
        version=version("heddle"),
    )


def embedding_kinds_of(checkpoint: Checkpoint) -> list[model_pb2.EmbeddingKind]:
    if checkpoint.kind is not ModelKind.EMBEDDER:
        return []
    further = [model_pb2.EMBEDDING_KIND_SPARSE, model_pb2.EMBEDDING_KIND_COLBERT] if checkpoint.m3 else []
    return [model_pb2.EMBEDDING_KIND_DENSE, *further]


def types_of(config: Mapping[str, Any]) -> int:
    """How many token types there are embeddings of."""
    stated = config.get("type_vocab_size")
    if stated is None:
        return 2 if config.get("model_type") in TWO_TYPES else 0
    return int(stated)
