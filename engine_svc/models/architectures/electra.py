"""ELECTRA: BERT with embeddings that may be narrower than its layers. Its discriminator is what people train on."""

import dataclasses
from functools import partial

from engine_svc.models.activations import Activation
from engine_svc.models.architectures import bert, roberta
from engine_svc.models.linear import load_linear
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.transformer import Transformer
from engine_svc.models.weights import Weights

PREFIX = "electra."
UNUSED = ("discriminator_predictions.", "generator_predictions.", "generator_lm_head.")


def load(config: ModelConfig, weights: Weights) -> Transformer:
    """Raises CheckpointError."""
    config.require("position_embedding_type", "absolute")
    config.require("is_decoder", False)
    width, hidden = config.positive("embedding_size", default=128), config.positive("hidden_size")
    embeddings = bert.load_embeddings(config, weights, width=width)
    if width != hidden:
        projection = load_linear(weights.quantized(None), "embeddings_project", hidden, width)
        embeddings = dataclasses.replace(embeddings, projection=projection)
    return Transformer(embeddings, bert.load_layers(config, weights))


load_sequence_classification = partial(roberta.load_sequence_classification, activation=Activation.GELU)

HEADS = bert.classifiers(load_sequence_classification)
