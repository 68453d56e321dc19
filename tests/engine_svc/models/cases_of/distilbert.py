"""Parity cases of DistilBERT."""

from typing import Any

from transformers import (
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    DistilBertModel,
    PreTrainedModel,
)

from heddle.checkpoint import ModelKind
from tests.checkpoints import POSITIONS, VOCABULARY_SIZE
from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import encoders

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": POSITIONS,
}

# What transformers 4 wrote into config.json, and 5 does not.
OF_TRANSFORMERS_4: dict[str, Any] = {
    "dtype": None,
    "torch_dtype": "float32",
    "tie_weights_": True,
    "tie_word_embeddings": None,
    "sinusoidal_pos_embds": False,
    "id2label": None,
    "label2id": None,
}


def case(model_class: type[PreTrainedModel], kind: ModelKind, name: str, **wishes: Any) -> Case:
    return encoders.case(model_class, kind, name, {**SMALL, **wishes.pop("config", {})}, **wishes)


CASES = [
    case(DistilBertModel, ModelKind.EMBEDDER, "as transformers 5 saves it"),
    case(DistilBertModel, ModelKind.EMBEDDER, "relu", config={"activation": "relu"}),
    case(
        DistilBertModel,
        ModelKind.EMBEDDER,
        "sinusoidal positions",
        config={"sinusoidal_pos_embds": True},
        stated=OF_TRANSFORMERS_4,
    ),
    case(DistilBertForMaskedLM, ModelKind.EMBEDDER, "below a masked LM"),
    case(DistilBertForSequenceClassification, ModelKind.RERANKER, "one label", config={"num_labels": 1}),
    case(DistilBertForSequenceClassification, ModelKind.CLASSIFIER, "no labels stated", stated=OF_TRANSFORMERS_4),
    case(DistilBertForTokenClassification, ModelKind.TOKEN_CLASSIFIER, "nine labels", config={"num_labels": 9}),
    case(DistilBertForMaskedLM, ModelKind.SPARSE_EMBEDDER, "tied", stated=OF_TRANSFORMERS_4),
    case(
        DistilBertForMaskedLM,
        ModelKind.SPARSE_EMBEDDER,
        "decoder of its own",
        config={"tie_word_embeddings": False, "activation": "relu"},
    ),
]
