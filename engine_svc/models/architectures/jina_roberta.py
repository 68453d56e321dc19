"""Jina's XLM-RoBERTa: jina-embeddings-v3, jina-reranker-v2. Positions are rotary in the one for long texts,
learned in the reranker. The adapters of v3 are in the weights when they come here (`engine_svc.models.adapters`).
"""

from engine_svc.models.architectures import bert, roberta, rotary_bert
from engine_svc.models.architectures.rotary_bert import Names, load_plain_feed_forward
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.rope_scaling import rope_parameters, rotary_of
from engine_svc.models.rotary import Rotary
from engine_svc.models.transformer import Transformer
from engine_svc.models.weights import Weights

PREFIX, UNUSED = roberta.PREFIX, roberta.UNUSED

NAMES = Names(
    embedding_norm="emb_ln",
    layers="encoder.layers",
    query_key_value=("mixer.Wqkv",),
    attention_output="mixer.out_proj",
    attention_norm="norm1",
    feed_forward_norm="norm2",
)


def load(config: ModelConfig, weights: Weights) -> Transformer:
    """Raises CheckpointError for a tensor that is missing or not of the config's shape, and for what this is not."""
    config.require("position_embedding_type", "rotary", "absolute")
    is_rotary = config.get("position_embedding_type", "rotary") == "rotary"
    return rotary_bert.load(
        config,
        weights,
        NAMES,
        load_rotary(config, weights) if is_rotary else None,
        lambda _, layer: load_plain_feed_forward(config, weights, f"{layer}.mlp"),
        positions=None if is_rotary else bert.load_positions(config, weights, config.positive("hidden_size")),
    )


def load_rotary(config: ModelConfig, weights: Weights) -> Rotary:
    """Jina's own code has another default than transformers' class."""
    is_native = config.get("model_type") == "jina_embeddings_v3"
    base = config.number("rotary_emb_base", 20_000.0 if is_native else 10_000.0)
    head_dim = config.head_dim(config.positive("hidden_size"), config.positive("num_attention_heads"))
    return rotary_of(config, rope_parameters(config, base), head_dim, weights.device)


HEADS = bert.classifiers(roberta.load_sequence_classification)
