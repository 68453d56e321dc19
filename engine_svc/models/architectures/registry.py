"""The supported architectures, by the model_type of config.json: how to load the transformer, and the head of each kind
of model. `engine_svc.models.model` looks here. Embedders need no head of their own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine_svc.models.architectures import (
    bert,
    bert_variants,
    deberta,
    decoder,
    jina_bert,
    modernbert,
    nomic_bert,
    rotary_bert,
)
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.transformer import Transformer
from engine_svc.models.weights import Weights


@dataclass(frozen=True, slots=True)
class Architecture:
    load: Callable[[ModelConfig, Weights], Transformer]
    prefix: str  # of the transformer's weights in a checkpoint with a head
    heads: bert.Heads = field(default_factory=dict)
    unused: tuple[str, ...] = ()  # beginnings of names of tensors that a checkpoint may have and the model does not use


ROBERTA_UNUSED = ("pooler.", "lm_head.")
# gte-multilingual-base has a classifier of tokens beside its vectors.
GTE_UNUSED = ("pooler.", "lm_head.", "classifier.")

ROBERTA = Architecture(bert.load, "roberta.", bert_variants.ROBERTA_HEADS, ROBERTA_UNUSED)
JINA_V3 = Architecture(rotary_bert.load_jina, "roberta.", rotary_bert.JINA_HEADS, ROBERTA_UNUSED)

ARCHITECTURES = {
    "albert": Architecture(
        bert_variants.load_albert, "albert.", bert_variants.ALBERT_HEADS, ("pooler.", "predictions.", "sop_classifier.")
    ),
    "bert": Architecture(bert.load, "bert.", bert.HEADS, ("pooler.", "cls.")),
    "camembert": ROBERTA,
    "deberta-v2": Architecture(
        deberta.load,
        "deberta.",
        deberta.HEADS,
        ("pooler.", "cls.", "lm_predictions.", "mask_predictions.", "embeddings.position_embeddings."),
    ),
    "distilbert": Architecture(
        bert_variants.load_distilbert, "distilbert.", bert_variants.DISTILBERT_HEADS, ("vocab_",)
    ),
    "electra": Architecture(
        bert_variants.load_electra,
        "electra.",
        bert_variants.ELECTRA_HEADS,
        ("discriminator_predictions.", "generator_predictions.", "generator_lm_head."),
    ),
    "gte": Architecture(rotary_bert.load_gte, "gte.", rotary_bert.GTE_HEADS, GTE_UNUSED),
    "jina_embeddings_v3": JINA_V3,
    "modernbert": Architecture(modernbert.load, "model.", modernbert.HEADS),
    "mpnet": Architecture(bert_variants.load_mpnet, "mpnet.", bert_variants.ROBERTA_HEADS, ROBERTA_UNUSED),
    "new": Architecture(rotary_bert.load_gte, "new.", rotary_bert.GTE_HEADS, GTE_UNUSED),
    "nomic_bert": Architecture(nomic_bert.load, "nomic_bert.", bert.make_classifiers(), ("pooler.", "cls.")),
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    **dict.fromkeys(decoder.FAMILIES, Architecture(decoder.load, "model.", decoder.HEADS, ("lm_head.",))),
}

# Checkpoints that bring code of their own may have the model_type of another architecture. Here by their
# position_embedding_type.
VARIANTS: Mapping[tuple[str, str], Architecture] = {
    ("bert", "alibi"): Architecture(jina_bert.load, "bert.", bert.HEADS, ("pooler.", "cls.")),
    ("xlm-roberta", "rotary"): JINA_V3,
}

# The same by a setting that only that code has.
VARIANTS_BY_SETTING: Mapping[tuple[str, str], Architecture] = {("xlm-roberta", "use_flash_attn"): JINA_V3}


def find_architecture(config: ModelConfig) -> Architecture:
    """Raises CheckpointError if it is not supported."""
    model_type = str(config.get("model_type"))
    architecture = find_variant(config, model_type) or ARCHITECTURES.get(model_type)
    if architecture is None:
        known = ", ".join(sorted(ARCHITECTURES))
        named = f"model type {model_type}" if config.get("model_type") else "a checkpoint without a model_type"
        config.refuse(f"{named} is not supported (supported: {known})")
    return architecture


def find_variant(config: ModelConfig, model_type: str) -> Architecture | None:
    by_positions = VARIANTS.get((model_type, str(config.get("position_embedding_type"))))
    if by_positions is not None:
        return by_positions
    stated = (
        VARIANTS_BY_SETTING[key] for key in VARIANTS_BY_SETTING if key[0] == model_type and key[1] in config.values
    )
    return next(stated, None)
