"""RoBERTa, XLM-RoBERTa and CamemBERT: BERT with other heads, and with positions that begin behind the padding id."""

from functools import partial

from engine_svc.models.activations import Activation
from engine_svc.models.architectures import bert
from heddle.checkpoint import ModelKind

PREFIX = "roberta."  # of all three
UNUSED = ("pooler.", "lm_head.")

load_sequence_classification = partial(
    bert.load_sequence_classification, dense="classifier.dense", output="classifier.out_proj"
)

load_splade = partial(
    bert.load_splade,
    dense="lm_head.dense",
    norm="lm_head.layer_norm",
    decoder="lm_head.decoder",
    bias="lm_head.bias",
    activation=Activation.GELU,
)

HEADS: bert.Heads = {**bert.classifiers(load_sequence_classification), ModelKind.SPARSE_EMBEDDER: load_splade}
