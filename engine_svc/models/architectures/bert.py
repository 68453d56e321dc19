"""BERT: MiniLM, BGE, E5, GTE (base, large), mxbai and most others.

Related architectures differ in their names and in some parts. Their files say what differs and use this one for the
rest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from engine_svc.models.activations import Activation
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.heads.classification import (
    SequenceClassificationHead,
    TokenClassificationHead,
    load_float32_linear,
)
from engine_svc.models.heads.head import Head
from engine_svc.models.heads.splade import SpladeHead, load_vocabulary_decoder
from engine_svc.models.linear import load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.norms import LayerNorm, load_layer_norm
from engine_svc.models.transformer import Attention, BranchNorms, Embeddings, FeedForward, Layer, Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint.checkpoint import Checkpoint, ModelKind, get_first_position
from heddle.checkpoint.sentence_modules import Pooling, Splade

WORDS = "embeddings.word_embeddings.weight"
# Output embeddings of masked language models, tied to WORDS. A checkpoint may store only one of the two.
TIED = (
    *("cls.predictions.decoder.weight", "lm_head.decoder.weight", "vocab_projector.weight"),
    *("predictions.decoder.weight", "generator_lm_head.weight"),
)


@dataclass(frozen=True, slots=True)
class LayerNames:
    """A checkpoint's names of the parts of a layer."""

    layer: str = "encoder.layer.{index}"
    qkv_proj: tuple[str, str, str] = ("attention.self.query", "attention.self.key", "attention.self.value")
    o_proj: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up_proj: str = "intermediate.dense"
    down_proj: str = "output.dense"
    feed_forward_norm: str = "output.LayerNorm"


LoadHead = Callable[[Checkpoint, Weights], Head]
Heads = Mapping[ModelKind, LoadHead]

NAMES = LayerNames()
FULL = AttentionPattern()


def load(config: ModelConfig, weights: Weights) -> Transformer:
    """Raises CheckpointError if a tensor is missing or not of the config's shape, and for unsupported settings. So do
    the `load` functions of the other architectures."""
    config.require("position_embedding_type", "absolute")
    config.require("is_decoder", False)
    return Transformer(load_embeddings(config, weights), load_layers(config, weights))


def load_embeddings(
    config: ModelConfig,
    weights: Weights,
    *,
    size: int | None = None,
    has_positions: bool = True,
    has_types: bool = True,
) -> Embeddings:
    """`size` is the embedding size, if it is not the hidden size."""
    size = size or config.hidden_size
    positions = load_positions(config, weights, size) if has_positions else None
    count = config.positive("type_vocab_size", default=2) if has_types else 0
    types = weights.load("embeddings.token_type_embeddings.weight", [count, size]) if count else None
    words = weights.first_present(WORDS, *TIED) if config.get("tie_word_embeddings", True) else WORDS
    if count == 1 and types is not None and positions is not None:  # the only type is added to the positions once
        positions, types = positions if positions.is_meta else positions + types, None
    return Embeddings(
        words=weights.load(words, [config.vocab_size, size]),
        positions=positions,
        types=types,
        norm=load_norm(config, weights, "embeddings.LayerNorm", size),
    )


def load_positions(config: ModelConfig, weights: Weights, size: int) -> Tensor:
    rows = config.positive("max_position_embeddings", default=512)
    return weights.load("embeddings.position_embeddings.weight", [rows, size])[get_first_position(config.values) :]


def load_layers(
    config: ModelConfig, weights: Weights, names: LayerNames = NAMES, pattern: AttentionPattern = FULL
) -> list[Layer]:
    return weights.load_each(lambda index: load_layer(config, weights, names, index, pattern), range(config.num_layers))


def load_layer(
    config: ModelConfig, weights: Weights, names: LayerNames, index: int, pattern: AttentionPattern
) -> Layer:
    name = names.layer.format(index=index)
    return Layer(
        attention=load_attention(config, weights, names, name, pattern),
        attention_norms=load_post_norm(config, weights, f"{name}.{names.attention_norm}"),
        feed_forward=load_feed_forward(config, weights, f"{name}.{names.up_proj}", f"{name}.{names.down_proj}"),
        feed_forward_norms=load_post_norm(config, weights, f"{name}.{names.feed_forward_norm}"),
    )


def load_attention(
    config: ModelConfig, weights: Weights, names: LayerNames, layer: str, pattern: AttentionPattern
) -> Attention:
    hidden_size, width = config.hidden_size, config.num_heads * config.head_dim
    return Attention(
        qkv_proj=load_linear(weights, [f"{layer}.{part}" for part in names.qkv_proj], width, hidden_size),
        o_proj=load_linear(weights, f"{layer}.{names.o_proj}", hidden_size, width),
        num_heads=config.num_heads,
        num_kv_heads=config.num_heads,
        pattern=pattern,
    )


def load_feed_forward(config: ModelConfig, weights: Weights, up_proj: str, down_proj: str) -> FeedForward:
    hidden_size, intermediate_size = config.hidden_size, config.intermediate_size
    return FeedForward(
        load_linear(weights, up_proj, intermediate_size, hidden_size, activation=read_activation(config)),
        load_linear(weights, down_proj, hidden_size, intermediate_size),
    )


def load_norm(config: ModelConfig, weights: Weights, name: str, size: int | None = None) -> LayerNorm:
    return load_layer_norm(weights, name, size or config.hidden_size, config.number("layer_norm_eps", 1e-12))


def load_post_norm(config: ModelConfig, weights: Weights, name: str) -> BranchNorms:
    return BranchNorms(sum=load_norm(config, weights, name))


def read_activation(config: ModelConfig) -> Activation:
    return config.activation("activation" if config.get("activation") else "hidden_act")


def load_sequence_classification(
    checkpoint: Checkpoint,
    weights: Weights,
    *,
    dense: str = "pooler.dense",
    output: str = "classifier",
    activation: Activation = Activation.TANH,
) -> Head:
    """The head of BertForSequenceClassification; related architectures have other names. Raises CheckpointError if a
    tensor is missing or has another shape. So do the other functions that load heads."""
    hidden_size = ModelConfig.of(checkpoint).hidden_size
    return SequenceClassificationHead(
        Pooling.CLS,
        [
            load_float32_linear(weights, dense, hidden_size, hidden_size, activation=activation),
            load_float32_linear(weights, output, len(checkpoint.labels), hidden_size),
        ],
    )


def load_token_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    """The head of BertForTokenClassification."""
    hidden_size = ModelConfig.of(checkpoint).hidden_size
    return TokenClassificationHead([load_float32_linear(weights, "classifier", len(checkpoint.labels), hidden_size)])


def load_splade(
    checkpoint: Checkpoint,
    weights: Weights,
    *,
    dense: str = "cls.predictions.transform.dense",
    norm: str = "cls.predictions.transform.LayerNorm",
    decoder: str = "cls.predictions.decoder",
    bias: str = "cls.predictions.bias",
    activation: Activation | None = None,
) -> Head:
    """The head of BertForMaskedLM. The default activation is that of the layers."""
    config = ModelConfig.of(checkpoint)
    hidden_size, activation = config.hidden_size, activation or read_activation(config)
    return SpladeHead(
        transform=load_linear(weights, dense, hidden_size, hidden_size, activation=activation),
        norm=load_norm(config, weights, norm),
        decoder=load_vocabulary_decoder(config, weights, decoder, bias),
        vocabulary_size=config.vocab_size,
        splade=checkpoint.splade or Splade(),
    )


def make_classifiers(load_sequence_head: LoadHead = load_sequence_classification) -> Heads:
    """Related architectures have their own head for sequences, and BERT's for tokens. A reranker is a classifier with
    one label."""
    return {
        ModelKind.CLASSIFIER: load_sequence_head,
        ModelKind.RERANKER: load_sequence_head,
        ModelKind.TOKEN_CLASSIFIER: load_token_classification,
    }


HEADS: Heads = {**make_classifiers(), ModelKind.SPARSE_EMBEDDER: load_splade}
