"""A BERT with one label: how well a document answers a query."""

from pathlib import Path

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import BertForSequenceClassification

from tests.small_models.minilm import body_with_head, fit, pooled_features, save
from tests.small_models.reranker_corpus import pairs

# More than the default, lest a score in float32 is nothing but 0 or 1.
PENALTY = 3e-2


def reranker_model(folder: Path) -> Path:
    model = body_with_head(BertForSequenceClassification, num_labels=1)
    examples = sorted(pairs(), key=lambda pair: len(pair.query) + len(pair.document))
    features = pooled_features(model.bert, [(pair.query, pair.document) for pair in examples])
    targets = torch.tensor([[float(pair.relevant)] for pair in examples])
    fit(model.classifier, features, targets, binary_cross_entropy_with_logits, PENALTY)
    return save(model, folder)
