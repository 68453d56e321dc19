"""Parity cases of MPNet."""

from typing import Any

from transformers import (
    MPNetForMaskedLM,
    MPNetForSequenceClassification,
    MPNetForTokenClassification,
    MPNetModel,
    PreTrainedModel,
)

from heddle.checkpoint import ModelKind
from tests.checkpoints import POSITIONS, SMALL_BERT
from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import encoders
from tests.engine_svc.models.cases_of.encoders import OF_TRANSFORMERS_4, as_of_old
from tests.engine_svc.models.packed import ALL_LENGTHS

LONGEST = 300  # beyond the last distance that has a bucket of its own, and longer than a tile of queries

SMALL: dict[str, Any] = {
    **SMALL_BERT,
    "max_position_embeddings": POSITIONS + 2,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
}


def case(model_class: type[PreTrainedModel], kind: ModelKind, name: str, **wishes: Any) -> Case:
    return encoders.case(model_class, kind, name, {**SMALL, **wishes.pop("config", {})}, first_position=2, **wishes)


CASES = [
    case(
        MPNetModel,
        ModelKind.EMBEDDER,
        "as transformers 5 saves it",
        config={"max_position_embeddings": LONGEST + 2},
        lengths=(*ALL_LENGTHS, 130, LONGEST, 17),
    ),
    case(MPNetModel, ModelKind.EMBEDDER, "as of old", stated=OF_TRANSFORMERS_4, renamed=as_of_old),
    case(MPNetForMaskedLM, ModelKind.EMBEDDER, "below a masked LM"),
    case(MPNetForSequenceClassification, ModelKind.RERANKER, "one label", config={"num_labels": 1}),
    case(MPNetForSequenceClassification, ModelKind.CLASSIFIER, "five labels", config={"num_labels": 5}),
    case(MPNetForTokenClassification, ModelKind.TOKEN_CLASSIFIER, "nine labels", config={"num_labels": 9}),
    case(MPNetForMaskedLM, ModelKind.SPARSE_EMBEDDER, "tied"),
]
