"""BERT: MiniLM, BGE, E5, GTE (base, large), mxbai and most others.

Its kin differ in names and in the odd part: their files say what differs and call this one for the rest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from engine_svc.models.activations import Activation
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.heads.classification import (
    SequenceClassificationHead,
    TokenClassificationHead,
    float32_linear,
)
from engine_svc.models.heads.head import Head
from engine_svc.models.heads.splade import SpladeHead, load_vocabulary_decoder
from engine_svc.models.linear import load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.norms import load_layer_norm
from engine_svc.models.transformer import Attention, Embeddings, FeedForward, Layer, Norms, Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint.checkpoint import Checkpoint, ModelKind, get_first_position
from heddle.checkpoint.sentence_modules import Pooling, Splade

PREFIX = "bert."  # of the encoder's weights in a model with a head
UNUSED = ("pooler.", "cls.")  # where the model is used without them

WORDS = "embeddings.word_embeddings.weight"
# Output embeddings of masked language models, tied to WORDS. A checkpoint may store only one of the two.
TIED = (
    *("cls.predictions.decoder.weight", "lm_head.decoder.weight", "vocab_projector.weight"),
    *("predictions.decoder.weight", "generator_lm_head.weight"),
)

HIDDEN = ("hidden_size", "dim")  # the second is DistilBERT's name for it


@dataclass(frozen=True, slots=True)
class LayerNames:
    """What a checkpoint calls the parts of a layer."""

    layer: str = "encoder.layer.{index}"
    query_key_value: tuple[str, str, str] = ("attention.self.query", "attention.self.key", "attention.self.value")
    attention_output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    feed_forward_norm: str = "output.LayerNorm"


LoadHead = Callable[[Checkpoint, Weights], Head]
Heads = Mapping[ModelKind, LoadHead]

NAMES = LayerNames()
ALL = AttentionPattern()


def load(config: ModelConfig, weights: Weights) -> Transformer:
    """Raises CheckpointError for a tensor that is missing or not of the config's shape, and for what BERT is not."""
    config.require("position_embedding_type", "absolute")
    config.require("is_decoder", False)
    return Transformer(load_embeddings(config, weights), load_layers(config, weights))


def load_embeddings(
    config: ModelConfig,
    weights: Weights,
    *,
    width: int | None = None,
    has_positions: bool = True,
    has_types: bool = True,
) -> Embeddings:
    """`width` where it is not that of the layers."""
    width = width or config.positive(*HIDDEN)
    positions = load_positions(config, weights, width) if has_positions else None
    count = config.positive("type_vocab_size", default=2) if has_types else 0
    types = weights.take("embeddings.token_type_embeddings.weight", [count, width]) if count else None
    words = weights.first_of(WORDS, *TIED) if config.get("tie_word_embeddings", True) else WORDS
    if count == 1 and types is not None and positions is not None:  # every token has it, so the positions can
        positions, types = positions + types, None
    return Embeddings(
        words=weights.take(words, [config.positive("vocab_size"), width]),
        positions=positions,
        types=types,
        norm=load_layer_norm(weights, "embeddings.LayerNorm", width, epsilon_of(config)),
    )


def load_positions(config: ModelConfig, weights: Weights, width: int) -> Tensor:
    rows = config.positive("max_position_embeddings", default=512)
    return weights.take("embeddings.position_embeddings.weight", [rows, width])[get_first_position(config.values) :]


def load_layers(
    config: ModelConfig, weights: Weights, names: LayerNames = NAMES, pattern: AttentionPattern = ALL
) -> list[Layer]:
    count = config.positive("num_hidden_layers", "n_layers")
    return [load_layer(config, weights, names, index, pattern) for index in range(count)]


def load_layer(
    config: ModelConfig, weights: Weights, names: LayerNames, index: int, pattern: AttentionPattern
) -> Layer:
    name = names.layer.format(index=index)
    return Layer(
        attention=load_attention(config, weights, names, name, pattern),
        attention_norms=load_norm_of_sum(config, weights, f"{name}.{names.attention_norm}"),
        feed_forward=load_feed_forward(config, weights, f"{name}.{names.up}", f"{name}.{names.down}"),
        feed_forward_norms=load_norm_of_sum(config, weights, f"{name}.{names.feed_forward_norm}"),
    )


def load_attention(
    config: ModelConfig, weights: Weights, names: LayerNames, layer: str, pattern: AttentionPattern
) -> Attention:
    hidden, heads = config.positive(*HIDDEN), config.positive("num_attention_heads", "n_heads")
    config.head_dim(hidden, heads)
    return Attention(
        query_key_value=load_linear(weights, [f"{layer}.{part}" for part in names.query_key_value], hidden, hidden),
        output=load_linear(weights, f"{layer}.{names.attention_output}", hidden, hidden),
        heads=heads,
        key_heads=heads,
        pattern=pattern,
    )


def load_feed_forward(config: ModelConfig, weights: Weights, up: str, down: str) -> FeedForward:
    hidden, intermediate = config.positive(*HIDDEN), config.positive("intermediate_size", "hidden_dim")
    return FeedForward(
        load_linear(weights, up, intermediate, hidden, activation=activation_of(config)),
        load_linear(weights, down, hidden, intermediate),
    )


def load_norm_of_sum(config: ModelConfig, weights: Weights, name: str) -> Norms:
    return Norms(of_sum=load_layer_norm(weights, name, config.positive(*HIDDEN), epsilon_of(config)))


def activation_of(config: ModelConfig) -> Activation:
    return config.activation("activation" if config.get("activation") else "hidden_act")


def epsilon_of(config: ModelConfig) -> float:
    return config.number("layer_norm_eps", 1e-12)


def load_sequence_classification(
    checkpoint: Checkpoint,
    weights: Weights,
    *,
    dense: str = "pooler.dense",
    output: str = "classifier",
    activation: Activation = Activation.TANH,
) -> Head:
    """Of BertForSequenceClassification. Raises CheckpointError for a tensor that is missing or of another shape; so do
    the others here. The kin call the linears otherwise."""
    hidden = ModelConfig.of(checkpoint).positive(*HIDDEN)
    return SequenceClassificationHead(
        Pooling.CLS,
        [
            float32_linear(weights, dense, hidden, hidden, activation=activation),
            float32_linear(weights, output, len(checkpoint.labels), hidden),
        ],
    )


def load_token_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    """Of BertForTokenClassification."""
    hidden = ModelConfig.of(checkpoint).positive(*HIDDEN)
    return TokenClassificationHead([float32_linear(weights, "classifier", len(checkpoint.labels), hidden)])


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
    """Of BertForMaskedLM. Its activation is that of the layers, where none is given."""
    config = ModelConfig.of(checkpoint)
    hidden = config.positive(*HIDDEN)
    return SpladeHead(
        transform=load_linear(weights, dense, hidden, hidden, activation=activation or activation_of(config)),
        norm=load_layer_norm(weights, norm, hidden, epsilon_of(config)),
        decoder=load_vocabulary_decoder(config, weights, decoder, bias),
        vocabulary_size=config.positive("vocab_size"),
        splade=checkpoint.splade or Splade(),
    )


def classifiers(of_sequences: LoadHead = load_sequence_classification) -> Heads:
    """Kin have a head of their own for sequences, and BERT's for tokens. A reranker is a classifier with one label."""
    return {
        ModelKind.CLASSIFIER: of_sequences,
        ModelKind.RERANKER: of_sequences,
        ModelKind.TOKEN_CLASSIFIER: load_token_classification,
    }


HEADS: Heads = {**classifiers(), ModelKind.SPARSE_EMBEDDER: load_splade}
