"""Parity cases of DeBERTa v2 and v3."""

from typing import Any

from transformers import (
    DebertaV2ForSequenceClassification,
    DebertaV2ForTokenClassification,
    DebertaV2Model,
    PreTrainedModel,
)

from heddle.checkpoint import ModelKind
from tests.checkpoints import SMALL_BERT
from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import encoders
from tests.engine_svc.models.cases_of.encoders import OF_TRANSFORMERS_4, as_of_old

SMALL: dict[str, Any] = {
    **SMALL_BERT,
    "layer_norm_eps": 1e-7,
    "relative_attention": True,
    "position_buckets": 16,  # distances are shared from 8 on
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "max_relative_positions": -1,
    "type_vocab_size": 0,
    "pooler_hidden_act": "gelu",
}


def case(model_class: type[PreTrainedModel], kind: ModelKind, name: str, **wishes: Any) -> Case:
    return encoders.case(model_class, kind, name, {**SMALL, **wishes.pop("config", {})}, **wishes)


CASES = [
    case(DebertaV2Model, ModelKind.EMBEDDER, "as v3"),
    case(
        DebertaV2Model,
        ModelKind.EMBEDDER,
        "as of old, comparisons in one string",
        stated={**OF_TRANSFORMERS_4, "position_embedding_type": None, "pos_att_type": "p2c|c2p"},
        renamed=as_of_old,
    ),
    case(
        DebertaV2Model,
        ModelKind.EMBEDDER,
        "projections of its own for distances, no buckets, positions and types too",
        config={
            "share_att_key": False,
            "position_buckets": -1,
            "max_relative_positions": 24,
            "norm_rel_ebd": "none",
            "position_biased_input": True,
            "type_vocab_size": 2,
        },
        has_types=True,
    ),
    case(DebertaV2Model, ModelKind.EMBEDDER, "one comparison alone", config={"pos_att_type": ["c2p"]}),
    case(DebertaV2ForSequenceClassification, ModelKind.RERANKER, "one label", config={"num_labels": 1}, seed=2),
    case(
        DebertaV2ForSequenceClassification,
        ModelKind.CLASSIFIER,
        "five labels, pooler of another activation",
        config={"num_labels": 5, "pooler_hidden_act": "relu"},
    ),
    case(DebertaV2ForTokenClassification, ModelKind.TOKEN_CLASSIFIER, "nine labels", config={"num_labels": 9}),
]
