"""What an engine pod tells others about its model (heddle.v1.Model)."""

from importlib.metadata import version

from engine_svc.backends.backend import Backend
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint
from heddle.v1 import model_pb2


def described(
    checkpoint: Checkpoint, backend: Backend, settings: EngineSettings, batch_tokens_max: int
) -> model_pb2.Model:
    config = checkpoint.config
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
        multi_label=checkpoint.multi_label,
        prompt_names=sorted(checkpoint.prompts),
        batch_tokens_max=batch_tokens_max,
        uses_type_ids=int(config.get("type_vocab_size") or 0) > 1,
        matryoshka=checkpoint.matryoshka,
        version=version("heddle"),
    )
