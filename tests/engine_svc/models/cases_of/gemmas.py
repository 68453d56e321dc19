"""Parity cases of Gemma 1, 2 and 3, and of EmbeddingGemma."""

from pathlib import Path
from typing import Any

from transformers import (
    Gemma2ForSequenceClassification,
    Gemma2Model,
    Gemma3ForCausalLM,
    Gemma3TextForSequenceClassification,
    Gemma3TextModel,
    GemmaForCausalLM,
    GemmaForSequenceClassification,
)

from heddle.checkpoint import ModelKind
from tests.engine_svc.models.cases_of.decoders import EMBEDDER, RERANKER, case
from tests.engine_svc.models.hub_layout import FULL, SLIDING, as_transformers_4, change_config

HEADS: dict[str, Any] = {"head_dim": 16, "hidden_size": 32}
# Small, so that a cap matters.
GEMMA2: dict[str, Any] = {
    **HEADS,
    "query_pre_attn_scalar": 24,
    "attn_logit_softcapping": 1.5,
    "sliding_window": 8,
    "num_hidden_layers": 3,
}
GEMMA3: dict[str, Any] = {
    **HEADS,
    "query_pre_attn_scalar": 24,
    "sliding_window": 8,
    "num_hidden_layers": 3,
    "sliding_window_pattern": 2,
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
        FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
    },
}


def first_gemma(folder: Path) -> None:
    """Writes the activation as the first Gemmas did: gelu, but they were trained with its approximation."""
    change_config(folder, hidden_act="gelu", hidden_activation=None)


def pattern(folder: Path) -> None:
    """Instead of layer_types."""
    change_config(folder, without=("_sliding_window_pattern",), sliding_window_pattern=2)


CASES = [
    case(GemmaForCausalLM, "as transformers 4 wrote it", EMBEDDER, as_transformers_4, first_gemma, **HEADS),
    case(GemmaForSequenceClassification, "one label", RERANKER, num_labels=1, num_key_value_heads=1, **HEADS),
    case(Gemma2Model, "bge-multilingual", EMBEDDER, as_transformers_4, **GEMMA2),
    case(Gemma2Model, "no cap", **{**GEMMA2, "attn_logit_softcapping": None}),
    case(Gemma2ForSequenceClassification, "reward", RERANKER, num_labels=1, **GEMMA2),
    case(Gemma3ForCausalLM, "scaled", **GEMMA3),
    case(Gemma3TextModel, "scaled, as transformers 4 wrote it", EMBEDDER, as_transformers_4, pattern, **GEMMA3),
    case(Gemma3TextModel, "EmbeddingGemma", use_bidirectional_attention=True, **GEMMA3),
    case(
        *(Gemma3TextForSequenceClassification, "three labels", ModelKind.CLASSIFIER, as_transformers_4, pattern),
        **{"num_labels": 3, "use_bidirectional_attention": True, **GEMMA3},
    ),
]
