"""The heads of BERT, as transformers names their weights. `engine_svc.models.architectures` lists them by kind."""

import torch

from engine_svc.models import bert
from engine_svc.models.heads.classification import SequenceClassificationHead, TokenClassificationHead
from engine_svc.models.heads.head import Head
from engine_svc.models.heads.splade import SpladeHead
from engine_svc.models.linear import ACTIVATIONS, Linear, linear
from engine_svc.models.weights import Weights
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.sentence_modules import Splade

MASKED_LM = "cls.predictions"


def load_sequence_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    """Of BertForSequenceClassification. Raises CheckpointError for a tensor that is missing or of another shape; so do
    the others here."""
    hidden = checkpoint.config["hidden_size"]
    return SequenceClassificationHead(
        pooler=float32_linear(weights, "pooler.dense", hidden, hidden),
        classifier=float32_linear(weights, "classifier", len(checkpoint.labels), hidden),
    )


def load_token_classification(checkpoint: Checkpoint, weights: Weights) -> Head:
    """Of BertForTokenClassification."""
    return TokenClassificationHead(
        float32_linear(weights, "classifier", len(checkpoint.labels), checkpoint.config["hidden_size"])
    )


def load_splade(checkpoint: Checkpoint, weights: Weights) -> Head:
    """The head of BertForMaskedLM, whose decoder is most often the table of word embeddings once more."""
    config = checkpoint.config
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    decoder, bias = f"{MASKED_LM}.decoder.weight", f"{MASKED_LM}.bias"
    if config.get("tie_word_embeddings", True) and not weights.has(decoder):
        decoder = "embeddings.word_embeddings.weight"
    return SpladeHead(
        transform=linear(
            weights.take(f"{MASKED_LM}.transform.dense.weight", [hidden, hidden]),
            weights.take(f"{MASKED_LM}.transform.dense.bias", [hidden]),
            ACTIVATIONS[config.get("hidden_act", "gelu")],
        ),
        norm=bert.load_norm(config, weights, f"{MASKED_LM}.transform.LayerNorm"),
        decoder=linear(weights.take(decoder, [vocabulary, hidden]), weights.take(bias, [vocabulary])),
        vocabulary_size=vocabulary,
        splade=checkpoint.splade or Splade(),
    )


def float32_linear(weights: Weights, name: str, outputs: int, inputs: int) -> Linear:
    return linear(
        weights.take(f"{name}.weight", [outputs, inputs], torch.float32),
        weights.take(f"{name}.bias", [outputs], torch.float32),
    )


HEADS = {
    ModelKind.CLASSIFIER: load_sequence_classification,
    ModelKind.RERANKER: load_sequence_classification,
    ModelKind.TOKEN_CLASSIFIER: load_token_classification,
    ModelKind.SPARSE_EMBEDDER: load_splade,
}
