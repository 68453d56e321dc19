"""Parity cases of BERT and its relatives: RoBERTa, DistilBERT, MPNet, ELECTRA, ALBERT and DeBERTa. Their checkpoints
are saved in the ways of all ages of transformers."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AlbertForMaskedLM,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
    AlbertModel,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    CamembertForSequenceClassification,
    CamembertModel,
    DebertaV2ForSequenceClassification,
    DebertaV2ForTokenClassification,
    DebertaV2Model,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    DistilBertModel,
    ElectraForPreTraining,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    ElectraModel,
    MPNetForMaskedLM,
    MPNetForSequenceClassification,
    MPNetForTokenClassification,
    MPNetModel,
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
from tests.checkpoints import POSITIONS, SMALL_BERT, VOCABULARY_SIZE
from tests.engine_svc.models.cases import Case, make_case
from tests.engine_svc.models.hub_layout import change_config, rename_tensors
from tests.engine_svc.models.packed import ALL_LENGTHS

LONGEST = 300  # beyond the last distance that has its own bucket in MPNet, and longer than a tile of queries

ROBERTA: dict[str, Any] = {
    **SMALL_BERT,
    "max_position_embeddings": POSITIONS + 2,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
}
SMALL: Mapping[str, Mapping[str, Any]] = {
    "bert": SMALL_BERT,
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), ROBERTA),
    "distilbert": {
        "vocab_size": VOCABULARY_SIZE,
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 48,
        "max_position_embeddings": POSITIONS,
    },
    "mpnet": {
        **SMALL_BERT,
        "max_position_embeddings": POSITIONS + 2,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
    },
    "electra": {**SMALL_BERT, "embedding_size": 16},
    "albert": {**SMALL_BERT, "embedding_size": 16, "hidden_act": "gelu_new"},
    "deberta-v2": {
        **SMALL_BERT,
        "layer_norm_eps": 1e-7,
        "relative_attention": True,
        "position_buckets": 16,  # distances share buckets from 8 on
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "max_relative_positions": -1,
        "type_vocab_size": 0,
        "pooler_hidden_act": "gelu",
    },
}

EMBEDDER, SPARSE = ModelKind.EMBEDDER, ModelKind.SPARSE_EMBEDDER
RERANKER, CLASSIFIER, TOKENS = ModelKind.RERANKER, ModelKind.CLASSIFIER, ModelKind.TOKEN_CLASSIFIER


def case(
    model_class: type[PreTrainedModel],
    kind: ModelKind,
    name: str,
    *finish: Callable[[Path], None],
    has_types: bool = False,
    lengths: tuple[int, ...] = ALL_LENGTHS,
    seed: int = 0,
    **changes: Any,
) -> Case:
    """`finish` makes the folder more like the real ones; `changes` are to the config."""
    config_class = model_class.config_class
    assert config_class is not None
    model_type = config_class.model_type
    config = {**SMALL[model_type], **changes}
    counts_from_padding = SMALL[model_type] is ROBERTA or model_type == "mpnet"
    return make_case(
        model_class,
        kind,
        name,
        config,
        *finish,
        has_types=has_types or model_type in ("bert", "electra", "albert"),
        first_position=config["pad_token_id"] + 1 if counts_from_padding else None,
        lengths=lengths,
        seed=seed,
    )


def by_transformers_4(folder: Path, *, without: tuple[str, ...] = ("dtype",), **changes: Any) -> None:
    """Writes settings that transformers 4 had in config.json."""
    stated = {
        "torch_dtype": "float32",
        "position_embedding_type": "absolute",
        "use_cache": True,
        "gradient_checkpointing": False,
        "output_past": True,
        "transformers_version": "4.8.1",
    }
    change_config(folder, without=without, **{**stated, **changes})


def with_legacy_names(folder: Path) -> None:
    """TensorFlow's names of layer norms, and a buffer that was saved until transformers 4.31."""
    positions = {"embeddings.position_ids": torch.arange(POSITIONS)[None]}
    renames = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def rename(name: str) -> str:
        for modern, legacy in renames.items():
            name = name.replace(modern, legacy)
        return name

    rename_tensors(folder, rename, add=positions)


def distilbert_by_transformers_4(folder: Path) -> None:
    change_config(
        folder,
        without=("dtype", "tie_word_embeddings", "id2label", "label2id"),
        torch_dtype="float32",
        tie_weights_=True,
        sinusoidal_pos_embds=False,
    )


OLD = (by_transformers_4, with_legacy_names)

CASES = [
    case(BertModel, EMBEDDER, "gelu"),
    *(case(BertModel, EMBEDDER, name, hidden_act=name) for name in ("gelu_new", "relu", "silu")),
    case(BertForMaskedLM, EMBEDDER, "below a masked LM"),
    case(BertForSequenceClassification, RERANKER, "one label", num_labels=1),
    case(BertForSequenceClassification, CLASSIFIER, "five labels", num_labels=5),
    case(BertForTokenClassification, TOKENS, "nine labels", num_labels=9),
    case(BertForMaskedLM, SPARSE, "tied"),
    case(BertForMaskedLM, SPARSE, "decoder of its own", tie_word_embeddings=False),
    case(RobertaModel, EMBEDDER, "as transformers 5 saves it"),
    case(
        RobertaModel,
        EMBEDDER,
        "as of old, without a padding id",
        *(partial(by_transformers_4, without=("dtype", "pad_token_id")), with_legacy_names),
    ),
    case(RobertaModel, EMBEDDER, "two token types", has_types=True, type_vocab_size=2),
    case(RobertaModel, EMBEDDER, "padding id 0", pad_token_id=0, max_position_embeddings=POSITIONS + 1),
    case(XLMRobertaModel, EMBEDDER, "as bge-m3", *OLD),
    case(XLMRobertaForMaskedLM, EMBEDDER, "below a masked LM"),
    case(CamembertModel, EMBEDDER, "as transformers 5 saves it"),
    case(XLMRobertaForSequenceClassification, RERANKER, "one label", num_labels=1),
    case(RobertaForSequenceClassification, CLASSIFIER, "five labels", num_labels=5),
    case(CamembertForSequenceClassification, CLASSIFIER, "two labels", by_transformers_4),
    case(XLMRobertaForTokenClassification, TOKENS, "nine labels", num_labels=9),
    case(RobertaForTokenClassification, TOKENS, "seventeen labels", num_labels=17),
    # The language model's head has GELU, whatever the activation of the layers.
    case(RobertaForMaskedLM, SPARSE, "tied", hidden_act="relu"),
    case(DistilBertModel, EMBEDDER, "as transformers 5 saves it"),
    case(DistilBertModel, EMBEDDER, "relu", activation="relu"),
    case(DistilBertModel, EMBEDDER, "sinusoidal positions", distilbert_by_transformers_4, sinusoidal_pos_embds=True),
    case(DistilBertForMaskedLM, EMBEDDER, "below a masked LM"),
    case(DistilBertForSequenceClassification, RERANKER, "one label", num_labels=1),
    case(DistilBertForSequenceClassification, CLASSIFIER, "no labels stated", distilbert_by_transformers_4),
    case(DistilBertForTokenClassification, TOKENS, "nine labels", num_labels=9),
    case(DistilBertForMaskedLM, SPARSE, "tied", distilbert_by_transformers_4),
    case(DistilBertForMaskedLM, SPARSE, "decoder of its own", tie_word_embeddings=False, activation="relu"),
    case(
        MPNetModel,
        EMBEDDER,
        "as transformers 5 saves it",
        lengths=(*ALL_LENGTHS, 130, LONGEST, 17),
        max_position_embeddings=LONGEST + 2,
    ),
    case(MPNetModel, EMBEDDER, "as of old", *OLD),
    case(MPNetForMaskedLM, EMBEDDER, "below a masked LM"),
    case(MPNetForSequenceClassification, RERANKER, "one label", num_labels=1),
    case(MPNetForSequenceClassification, CLASSIFIER, "five labels", num_labels=5),
    case(MPNetForTokenClassification, TOKENS, "nine labels", num_labels=9),
    case(MPNetForMaskedLM, SPARSE, "tied"),
    case(ElectraModel, EMBEDDER, "narrow embeddings, as of small ones"),
    case(
        ElectraModel,
        EMBEDDER,
        "as of old, embeddings as wide as layers, as of base and large ones",
        *OLD,
        embedding_size=32,
    ),
    case(ElectraForPreTraining, EMBEDDER, "discriminator"),
    case(ElectraForSequenceClassification, RERANKER, "one label", seed=1, num_labels=1),
    case(ElectraForSequenceClassification, CLASSIFIER, "five labels", num_labels=5),
    case(ElectraForTokenClassification, TOKENS, "nine labels", num_labels=9),
    case(AlbertModel, EMBEDDER, "one layer for all"),
    case(
        AlbertModel,
        EMBEDDER,
        "two groups of two layers for three steps",
        *OLD,
        num_hidden_layers=3,
        num_hidden_groups=2,
        inner_group_num=2,
    ),
    case(AlbertForMaskedLM, EMBEDDER, "below a masked LM"),
    case(AlbertForSequenceClassification, RERANKER, "one label", num_labels=1),
    case(AlbertForSequenceClassification, CLASSIFIER, "five labels", num_labels=5),
    case(AlbertForTokenClassification, TOKENS, "nine labels", num_labels=9),
    case(DebertaV2Model, EMBEDDER, "as v3"),
    case(
        DebertaV2Model,
        EMBEDDER,
        "as of old, comparisons in one string",
        partial(by_transformers_4, without=("dtype", "position_embedding_type"), pos_att_type="p2c|c2p"),
        with_legacy_names,
    ),
    case(
        DebertaV2Model,
        EMBEDDER,
        "projections of its own for distances, no buckets, positions and types too",
        has_types=True,
        share_att_key=False,
        position_buckets=-1,
        max_relative_positions=24,
        norm_rel_ebd="none",
        position_biased_input=True,
        type_vocab_size=2,
    ),
    case(DebertaV2Model, EMBEDDER, "one comparison alone", pos_att_type=["c2p"]),
    case(DebertaV2ForSequenceClassification, RERANKER, "one label", seed=2, num_labels=1),
    case(
        DebertaV2ForSequenceClassification,
        CLASSIFIER,
        "five labels, pooler of another activation",
        num_labels=5,
        pooler_hidden_act="relu",
    ),
    case(DebertaV2ForTokenClassification, TOKENS, "nine labels", num_labels=9),
]
