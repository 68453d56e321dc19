"""Parity cases of ELECTRA."""

from typing import Any

from transformers import (
    ElectraForPreTraining,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    ElectraModel,
    PreTrainedModel,
)

from heddle.checkpoint import ModelKind
from tests.checkpoints import SMALL_BERT
from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import encoders
from tests.engine_svc.models.cases_of.encoders import OF_TRANSFORMERS_4, as_of_old

SMALL: dict[str, Any] = {**SMALL_BERT, "embedding_size": 16}


def case(model_class: type[PreTrainedModel], kind: ModelKind, name: str, **wishes: Any) -> Case:
    return encoders.case(model_class, kind, name, {**SMALL, **wishes.pop("config", {})}, has_types=True, **wishes)


CASES = [
    case(ElectraModel, ModelKind.EMBEDDER, "narrow embeddings, as of small ones"),
    case(
        ElectraModel,
        ModelKind.EMBEDDER,
        "as of old, embeddings as wide as layers, as of base and large ones",
        config={"embedding_size": 32},
        stated=OF_TRANSFORMERS_4,
        renamed=as_of_old,
    ),
    case(ElectraForPreTraining, ModelKind.EMBEDDER, "discriminator"),
    case(ElectraForSequenceClassification, ModelKind.RERANKER, "one label", config={"num_labels": 1}, seed=1),
    case(ElectraForSequenceClassification, ModelKind.CLASSIFIER, "five labels", config={"num_labels": 5}),
    case(ElectraForTokenClassification, ModelKind.TOKEN_CLASSIFIER, "nine labels", config={"num_labels": 9}),
]
