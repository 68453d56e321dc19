"""Parity cases of ALBERT."""

from typing import Any

from transformers import (
    AlbertForMaskedLM,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
    AlbertModel,
    PreTrainedModel,
)

from heddle.checkpoint import ModelKind
from tests.checkpoints import SMALL_BERT
from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import encoders
from tests.engine_svc.models.cases_of.encoders import OF_TRANSFORMERS_4, as_of_old

SMALL: dict[str, Any] = {**SMALL_BERT, "embedding_size": 16, "hidden_act": "gelu_new"}


def case(model_class: type[PreTrainedModel], kind: ModelKind, name: str, **wishes: Any) -> Case:
    return encoders.case(model_class, kind, name, {**SMALL, **wishes.pop("config", {})}, has_types=True, **wishes)


CASES = [
    case(AlbertModel, ModelKind.EMBEDDER, "one layer for all"),
    case(
        AlbertModel,
        ModelKind.EMBEDDER,
        "two groups of two layers for three steps",
        config={"num_hidden_layers": 3, "num_hidden_groups": 2, "inner_group_num": 2},
        stated=OF_TRANSFORMERS_4,
        renamed=as_of_old,
    ),
    case(AlbertForMaskedLM, ModelKind.EMBEDDER, "below a masked LM"),
    case(AlbertForSequenceClassification, ModelKind.RERANKER, "one label", config={"num_labels": 1}),
    case(AlbertForSequenceClassification, ModelKind.CLASSIFIER, "five labels", config={"num_labels": 5}),
    case(AlbertForTokenClassification, ModelKind.TOKEN_CLASSIFIER, "nine labels", config={"num_labels": 9}),
]
