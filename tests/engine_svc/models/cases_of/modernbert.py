"""Parity cases of ModernBERT."""

from pathlib import Path
from typing import Any

from transformers import (
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    ModernBertModel,
    PreTrainedModel,
)

from heddle.checkpoint import ModelKind
from tests.checkpoints import POSITIONS, VOCABULARY_SIZE
from tests.engine_svc.models.cases import Case, Reference, make_case
from tests.engine_svc.models.hub_layout import change_config

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "local_attention": 12,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}

BIASES = {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True}


def as_transformers_4_wrote_it(folder: Path, *, every: int, bases: tuple[float, float]) -> None:
    """The layout of answerdotai/ModernBERT-base and of all that was trained from it until 2026."""
    change_config(
        folder,
        without=("layer_types", "rope_parameters", "dtype"),
        global_attn_every_n_layers=every,
        global_rope_theta=bases[0],
        local_rope_theta=bases[1],
        position_embedding_type="absolute",
        reference_compile=True,
        repad_logits_with_grad=False,
        torch_dtype="float32",
        transformers_version="4.47.0.dev0",
    )


def case(model_class: type[PreTrainedModel], kind: ModelKind, name: str, **config: Any) -> Case:
    """The layout of transformers 5."""
    return make_case(model_class, kind, name, {**SMALL, **config})


def older_case(
    model_class: type[PreTrainedModel],
    kind: ModelKind,
    name: str,
    *,
    every: int = 3,
    bases: tuple[float, float] = (160_000.0, 10_000.0),
    **config: Any,
) -> Case:
    """The layout of transformers 4."""
    rope = {
        "full_attention": {"rope_type": "default", "rope_theta": bases[0]},
        "sliding_attention": {"rope_type": "default", "rope_theta": bases[1]},
    }
    newer = case(model_class, kind, name, global_attn_every_n_layers=every, rope_parameters=rope, **config)

    def write(folder: Path) -> Reference:
        reference = newer.write(folder)
        as_transformers_4_wrote_it(folder, every=every, bases=bases)
        return reference

    return Case("modernbert", f"{name}, transformers 4", kind, write)


CASES = [
    case(ModernBertModel, ModelKind.EMBEDDER, "as gte-modernbert-base"),
    older_case(ModernBertModel, ModelKind.EMBEDDER, "as modernbert-embed-base"),
    older_case(
        ModernBertModel, ModelKind.EMBEDDER, "as mmBERT, every second layer", bases=(160_000.0, 160_000.0), every=2
    ),
    case(ModernBertModel, ModelKind.EMBEDDER, "a window beyond the text", local_attention=2 * POSITIONS),
    case(ModernBertModel, ModelKind.EMBEDDER, "an odd window, biases", local_attention=13, **BIASES),
    case(
        ModernBertModel,
        ModelKind.EMBEDDER,
        "layers named one by one",
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
    ),
    case(ModernBertForMaskedLM, ModelKind.EMBEDDER, "below a masked LM"),
    older_case(
        ModernBertForSequenceClassification,
        ModelKind.RERANKER,
        "as gte-reranker-modernbert-base, mean",
        num_labels=1,
        classifier_pooling="mean",
    ),
    case(ModernBertForSequenceClassification, ModelKind.CLASSIFIER, "five labels, first token", num_labels=5),
    case(ModernBertForTokenClassification, ModelKind.TOKEN_CLASSIFIER, "nine labels, biases", num_labels=9, **BIASES),
    case(ModernBertForMaskedLM, ModelKind.SPARSE_EMBEDDER, "tied"),
    case(
        ModernBertForMaskedLM,
        ModelKind.SPARSE_EMBEDDER,
        "decoder of its own, biases",
        tie_word_embeddings=False,
        **BIASES,
    ),
]
