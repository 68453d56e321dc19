"""Which functions build the transformer and the head of a checkpoint, by the model_type of its config.

`engine_svc.models.model` asks here. Heads are a table by kind of model; embedders have none of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine_svc.models.architectures import (
    albert,
    bert,
    deberta,
    decoder,
    distilbert,
    electra,
    gte,
    jina_bert,
    jina_roberta,
    modernbert,
    mpnet,
    nomic_bert,
    roberta,
)
from engine_svc.models.heads.head import Head
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.transformer import Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint, ModelKind


@dataclass(frozen=True, slots=True)
class Architecture:
    load: Callable[[ModelConfig, Weights], Transformer]
    prefix: str  # of the transformer's weights in a checkpoint with a head
    heads: Mapping[ModelKind, Callable[[Checkpoint, Weights], Head]] = field(default_factory=dict)
    unused: tuple[str, ...] = ()  # beginnings of names of tensors that may be there and are not used


JINA_ROBERTA = Architecture(jina_roberta.load, jina_roberta.PREFIX, jina_roberta.HEADS, jina_roberta.UNUSED)

ARCHITECTURES = {
    "albert": Architecture(albert.load, albert.PREFIX, albert.HEADS, albert.UNUSED),
    "bert": Architecture(bert.load, bert.PREFIX, bert.HEADS, bert.UNUSED),
    **dict.fromkeys(decoder.FAMILIES, Architecture(decoder.load, decoder.PREFIX, decoder.HEADS, decoder.UNUSED)),
    "deberta-v2": Architecture(deberta.load, deberta.PREFIX, deberta.HEADS, deberta.UNUSED),
    "distilbert": Architecture(distilbert.load, distilbert.PREFIX, distilbert.HEADS, distilbert.UNUSED),
    "electra": Architecture(electra.load, electra.PREFIX, electra.HEADS, electra.UNUSED),
    "gte": Architecture(gte.load, gte.PREFIX, gte.HEADS, gte.UNUSED),
    "jina_embeddings_v3": JINA_ROBERTA,
    "modernbert": Architecture(modernbert.load, modernbert.PREFIX, modernbert.HEADS),
    "mpnet": Architecture(mpnet.load, mpnet.PREFIX, mpnet.HEADS, mpnet.UNUSED),
    "new": Architecture(gte.load, gte.NEW_PREFIX, gte.HEADS, gte.UNUSED),
    "nomic_bert": Architecture(nomic_bert.load, nomic_bert.PREFIX, nomic_bert.HEADS, nomic_bert.UNUSED),
    **dict.fromkeys(
        ("roberta", "xlm-roberta", "camembert"),
        Architecture(bert.load, roberta.PREFIX, roberta.HEADS, roberta.UNUSED),
    ),
}

# What the same model_type stands for in checkpoints that bring code of their own, by their position_embedding_type.
VARIANTS: Mapping[tuple[str, str], Architecture] = {
    ("bert", "alibi"): Architecture(jina_bert.load, bert.PREFIX, bert.HEADS, bert.UNUSED),
    ("xlm-roberta", "rotary"): JINA_ROBERTA,
}

# The same by a setting that only that code has.
VARIANTS_BY_SETTING: Mapping[tuple[str, str], Architecture] = {("xlm-roberta", "use_flash_attn"): JINA_ROBERTA}


def architecture_of(config: ModelConfig) -> Architecture:
    """Raises CheckpointError for one that is not here."""
    model_type = str(config.get("model_type"))
    architecture = variant_of(config, model_type) or ARCHITECTURES.get(model_type)
    if architecture is None:
        known = ", ".join(sorted(ARCHITECTURES))
        named = f"model type {model_type}" if config.get("model_type") else "a checkpoint without a model_type"
        config.refuse(f"{named} is not supported (supported: {known})")
    return architecture


def variant_of(config: ModelConfig, model_type: str) -> Architecture | None:
    by_positions = VARIANTS.get((model_type, str(config.get("position_embedding_type"))))
    if by_positions is not None:
        return by_positions
    stated = (
        VARIANTS_BY_SETTING[key] for key in VARIANTS_BY_SETTING if key[0] == model_type and key[1] in config.values
    )
    return next(stated, None)
