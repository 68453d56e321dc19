"""DistilBERT: half of BERT's layers, no token types, no pooler, and names of its own for all that is left."""

from functools import partial

from engine_svc.models.activations import Activation
from engine_svc.models.architectures import bert
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.transformer import Transformer
from engine_svc.models.weights import Weights
from heddle.checkpoint import ModelKind

PREFIX = "distilbert."
UNUSED = ("vocab_",)

NAMES = bert.LayerNames(
    layer="transformer.layer.{index}",
    query_key_value=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    feed_forward_norm="output_layer_norm",
)


def load(config: ModelConfig, weights: Weights) -> Transformer:
    """Sinusoidal positions are stored like learned ones. Raises CheckpointError."""
    embeddings = bert.load_embeddings(config, weights, has_types=False)
    return Transformer(embeddings, bert.load_layers(config, weights, NAMES))


load_sequence_classification = partial(
    bert.load_sequence_classification, dense="pre_classifier", activation=Activation.RELU
)

load_splade = partial(
    bert.load_splade,
    dense="vocab_transform",
    norm="vocab_layer_norm",
    decoder="vocab_projector",
    bias="vocab_projector.bias",
)

HEADS: bert.Heads = {**bert.classifiers(load_sequence_classification), ModelKind.SPARSE_EMBEDDER: load_splade}
