"""BERT: MiniLM, BGE, E5, GTE (base, large), mxbai and most others."""

from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.heads.classification import (
    SequenceClassificationHead,
    TokenClassificationHead,
    float32_linear,
)
from engine_svc.models.heads.head import Head
from engine_svc.models.heads.splade import SpladeHead, load_vocabulary_decoder
from engine_svc.models.linear import Activation, load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.norms import load_layer_norm
from engine_svc.models.transformer import Attention, Embeddings, FeedForward, Layer, Norms, Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.sentence_modules import Pooling, Splade

PREFIX = "bert."  # of the encoder's weights in a model with a head
UNUSED = ("pooler.", "cls.")  # where the model is used without them


def load(config: ModelConfig, weights: Weights) -> Transformer:
    """Raises CheckpointError for a tensor that is missing or not of the config's shape, and for what BERT is not."""
    config.require("position_embedding_type", "absolute")
    config.require("is_decoder", False)
    return Transformer(
        embeddings=load_embeddings(config, weights),
        layers=[load_layer(config, weights, index) for index in range(config.positive("num_hidden_layers"))],
    )


def load_embeddings(config: ModelConfig, weights: Weights, *, position_first: int = 0) -> Embeddings:
    """`position_first` is the row that the first token of a sequence has in the table of positions."""
    hidden = config.positive("hidden_size")
    vocabulary, positions = config.positive("vocab_size"), config.positive("max_position_embeddings", default=512)
    types = config.positive("type_vocab_size", default=2)
    return Embeddings(
        words=weights.take("embeddings.word_embeddings.weight", [vocabulary, hidden]),
        positions=weights.take("embeddings.position_embeddings.weight", [positions, hidden])[position_first:],
        types=weights.take("embeddings.token_type_embeddings.weight", [types, hidden]),
        norm=load_layer_norm(weights, "embeddings.LayerNorm", hidden, epsilon_of(config)),
    )


def load_layer(config: ModelConfig, weights: Weights, index: int) -> Layer:
    hidden, intermediate = config.positive("hidden_size"), config.positive("intermediate_size")
    heads = config.positive("num_attention_heads")
    config.head_dim(hidden, heads)
    name = f"encoder.layer.{index}"
    projections = [f"{name}.attention.self.{projection}" for projection in ("query", "key", "value")]
    attention_norm = load_layer_norm(weights, f"{name}.attention.output.LayerNorm", hidden, epsilon_of(config))
    up = load_linear(
        weights, f"{name}.intermediate.dense", intermediate, hidden, activation=config.activation("hidden_act")
    )
    return Layer(
        attention=Attention(
            query_key_value=load_linear(weights, projections, hidden, hidden),
            output=load_linear(weights, f"{name}.attention.output.dense", hidden, hidden),
            heads=heads,
            key_heads=heads,
            pattern=AttentionPattern(),
        ),
        attention_norms=Norms(of_sum=attention_norm),
        feed_forward=FeedForward(up, load_linear(weights, f"{name}.output.dense", hidden, intermediate)),
        feed_forward_norms=Norms(
            of_sum=load_layer_norm(weights, f"{name}.output.LayerNorm", hidden, epsilon_of(config))
        ),
    )


def epsilon_of(config: ModelConfig) -> float:
    return config.number("layer_norm_eps", 1e-12)


def load_sequence_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    """Of BertForSequenceClassification. Raises CheckpointError for a tensor that is missing or of another shape; so do
    the others here."""
    hidden = ModelConfig.of(checkpoint).positive("hidden_size")
    return SequenceClassificationHead(
        Pooling.CLS,
        [
            float32_linear(weights, "pooler.dense", hidden, hidden, activation=Activation.TANH),
            float32_linear(weights, "classifier", len(checkpoint.labels), hidden),
        ],
    )


def load_token_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    """Of BertForTokenClassification."""
    hidden = ModelConfig.of(checkpoint).positive("hidden_size")
    return TokenClassificationHead([float32_linear(weights, "classifier", len(checkpoint.labels), hidden)])


def load_splade(checkpoint: Checkpoint, weights: Weights) -> Head:
    """Of BertForMaskedLM."""
    prediction = "cls.predictions"
    return load_masked_lm(
        checkpoint,
        weights,
        dense=f"{prediction}.transform.dense",
        norm=f"{prediction}.transform.LayerNorm",
        decoder=f"{prediction}.decoder",
        bias=f"{prediction}.bias",
    )


def load_masked_lm(
    checkpoint: Checkpoint, weights: Weights, *, dense: str, norm: str, decoder: str, bias: str
) -> SpladeHead:
    """By the names that a family has for BERT's parts."""
    config = ModelConfig.of(checkpoint)
    hidden = config.positive("hidden_size")
    return SpladeHead(
        transform=load_linear(weights, dense, hidden, hidden, activation=config.activation("hidden_act")),
        norm=load_layer_norm(weights, norm, hidden, epsilon_of(config)),
        decoder=load_vocabulary_decoder(config, weights, decoder, bias),
        vocabulary_size=config.positive("vocab_size"),
        splade=checkpoint.splade or Splade(),
    )


HEADS = {
    ModelKind.CLASSIFIER: load_sequence_classification,
    ModelKind.RERANKER: load_sequence_classification,
    ModelKind.TOKEN_CLASSIFIER: load_token_classification,
    ModelKind.SPARSE_EMBEDDER: load_splade,
}
