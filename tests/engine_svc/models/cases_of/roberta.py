"""Parity cases of RoBERTa, XLM-RoBERTa and CamemBERT."""

from typing import Any

from transformers import (
    CamembertForSequenceClassification,
    CamembertModel,
    PreTrainedModel,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
    RobertaModel,
    XLMRobertaForMaskedLM,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
    XLMRobertaModel,
)

from heddle.checkpoint import ModelKind
from tests.checkpoints import POSITIONS, SMALL_BERT
from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import encoders
from tests.engine_svc.models.cases_of.encoders import OF_TRANSFORMERS_4, as_of_old

SMALL: dict[str, Any] = {
    **SMALL_BERT,
    "max_position_embeddings": POSITIONS + 2,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
}


def case(model_class: type[PreTrainedModel], kind: ModelKind, name: str, **wishes: Any) -> Case:
    config = {**SMALL, **wishes.pop("config", {})}
    return encoders.case(model_class, kind, name, config, first_position=config["pad_token_id"] + 1, **wishes)


CASES = [
    case(RobertaModel, ModelKind.EMBEDDER, "as transformers 5 saves it"),
    case(
        RobertaModel,
        ModelKind.EMBEDDER,
        "as of old, without a padding id",
        stated={**OF_TRANSFORMERS_4, "pad_token_id": None},
        renamed=as_of_old,
    ),
    case(RobertaModel, ModelKind.EMBEDDER, "two token types", config={"type_vocab_size": 2}, has_types=True),
    case(
        RobertaModel,
        ModelKind.EMBEDDER,
        "padding id 0",
        config={"pad_token_id": 0, "max_position_embeddings": POSITIONS + 1},
    ),
    case(XLMRobertaModel, ModelKind.EMBEDDER, "as bge-m3", stated=OF_TRANSFORMERS_4, renamed=as_of_old),
    case(XLMRobertaForMaskedLM, ModelKind.EMBEDDER, "below a masked LM"),
    case(CamembertModel, ModelKind.EMBEDDER, "as transformers 5 saves it"),
    case(XLMRobertaForSequenceClassification, ModelKind.RERANKER, "one label", config={"num_labels": 1}),
    case(RobertaForSequenceClassification, ModelKind.CLASSIFIER, "five labels", config={"num_labels": 5}),
    case(CamembertForSequenceClassification, ModelKind.CLASSIFIER, "two labels", stated=OF_TRANSFORMERS_4),
    case(XLMRobertaForTokenClassification, ModelKind.TOKEN_CLASSIFIER, "nine labels", config={"num_labels": 9}),
    case(RobertaForTokenClassification, ModelKind.TOKEN_CLASSIFIER, "seventeen labels", config={"num_labels": 17}),
    # Whatever the layers' activation, that of the language model's head is GELU.
    case(RobertaForMaskedLM, ModelKind.SPARSE_EMBEDDER, "tied", config={"hidden_act": "relu"}),
]
