"""Parity cases of BERT."""

from pathlib import Path
from typing import Any

from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    PreTrainedModel,
)

from heddle.checkpoint import ModelKind
from tests.checkpoints import SMALL_BERT, write_old_modules
from tests.engine_svc.models.cases import Case, Reference, randomized, reference_of, saved


def case(model_class: type[PreTrainedModel], kind: ModelKind, name: str, **config: Any) -> Case:
    def write(folder: Path) -> Reference:
        if kind is ModelKind.SPARSE_EMBEDDER:
            write_old_modules(folder, ["MLMTransformer", "SpladePooling"])
        model = saved(randomized(model_class(BertConfig(**{**SMALL_BERT, **config}))), folder)
        return reference_of(model, kind, has_types=True)

    return Case("bert", name, kind, write, has_types=True)


CASES = [
    case(BertModel, ModelKind.EMBEDDER, "gelu"),
    *(case(BertModel, ModelKind.EMBEDDER, name, hidden_act=name) for name in ("gelu_new", "relu", "silu")),
    case(BertForMaskedLM, ModelKind.EMBEDDER, "below a masked LM"),
    case(BertForSequenceClassification, ModelKind.RERANKER, "one label", num_labels=1),
    case(BertForSequenceClassification, ModelKind.CLASSIFIER, "five labels", num_labels=5),
    case(BertForTokenClassification, ModelKind.TOKEN_CLASSIFIER, "nine labels", num_labels=9),
    case(BertForMaskedLM, ModelKind.SPARSE_EMBEDDER, "tied"),
    case(BertForMaskedLM, ModelKind.SPARSE_EMBEDDER, "decoder of its own", tie_word_embeddings=False),
]
