"""Two BERTs that classify feelings: exactly one in a text, or any number of them."""

from pathlib import Path

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import BertForSequenceClassification

from tests.small_models.feelings import FEELINGS, mixed_sayings, sayings
from tests.small_models.minilm import body_with_head, fit, pooled_features, save


def sentiment_model(folder: Path) -> Path:
    """Scores are a softmax over FEELINGS."""
    model = classifier(FEELINGS, "single_label_classification")
    texts, feelings = zip(*sayings(), strict=True)
    targets = torch.tensor([FEELINGS.index(feeling) for feeling in feelings])
    fit(model.classifier, pooled_features(model.bert, texts), targets, cross_entropy)
    return save(model, folder)


def multi_label_model(folder: Path) -> Path:
    """Scores are a sigmoid each; a neutral text has none of the labels."""
    labels = [feeling for feeling in FEELINGS if feeling != "neutral"]
    model = classifier(labels, "multi_label_classification")
    texts, feelings = zip(*mixed_sayings(), strict=True)
    targets = torch.tensor([[float(label in those) for label in labels] for those in feelings])
    fit(model.classifier, pooled_features(model.bert, texts), targets, binary_cross_entropy_with_logits)
    return save(model, folder)


def classifier(labels: list[str], problem_type: str) -> BertForSequenceClassification:
    return body_with_head(
        BertForSequenceClassification,
        problem_type=problem_type,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
