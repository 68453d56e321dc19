"""A BERT that finds people, organisations and places, and the transformers pipeline around it, to compare with."""

from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import BertForTokenClassification, TokenClassificationPipeline, pipeline

from tests.small_models.minilm import body_with_head, fit, minilm_tokenizer, save, token_features
from tests.small_models.ner_corpus import Labelled, labelled_sentences

# Those of dslim/bert-base-NER.
LABELS = ["O", "B-MISC", "I-MISC", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]


def ner_model(folder: Path) -> Path:
    model = body_with_head(
        BertForTokenClassification,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    sentences = sorted(labelled_sentences(), key=lambda sentence: len(sentence.text))
    features = token_features(model.bert, [sentence.text for sentence in sentences])
    fit(model.classifier, features, torch.tensor(token_labels(sentences)), cross_entropy)
    return save(model, folder)


def token_labels(sentences: list[Labelled]) -> list[int]:
    """Labels of all tokens, [CLS] and [SEP] included: B- for the first token of an entity, I- for its others."""
    encoding = minilm_tokenizer()([sentence.text for sentence in sentences], return_offsets_mapping=True)
    return [
        LABELS.index(label_at(span, sentence.entities))
        for sentence, spans in zip(sentences, encoding["offset_mapping"], strict=True)
        for span in spans
    ]


def label_at(span: tuple[int, int], entities: list[tuple[int, int, str]]) -> str:
    begin, end = span
    for first, last, kind in entities:
        if first <= begin < end <= last:
            return f"B-{kind}" if begin == first else f"I-{kind}"
    return "O"


def ner_pipeline(folder: Path, strategy: str) -> TokenClassificationPipeline:
    """`strategy` as in aggregation_strategy: none, simple, first, average or max."""
    return pipeline("token-classification", model=str(folder), aggregation_strategy=strategy, device="cpu")
