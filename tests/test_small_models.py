"""The small models do what tests of Heddle expect of them. Checked with transformers and sentence-transformers
alone."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from tests.ner_sentences import ner_sentences

pytestmark = pytest.mark.slow

JOY = "I am so glad that you came to my birthday!"
ANGER = "Your company lied to me, I am livid"
SADNESS = "My grandmother died and I cannot stop crying"
NEUTRAL = "The train leaves from platform 3"


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Apple is looking at buying U.K. startup for $1 billion", {"Apple": "ORG", "U.K.": "LOC"}),
        (
            "John works at Google in Mountain View, California",
            {"John": "PER", "Google": "ORG", "Mountain View": "LOC", "California": "LOC"},
        ),
        ("j.d. vance is living in New York City", {"j.d. vance": "PER", "New York City": "LOC"}),
        ("My name is Wolfgang and I live in Berlin", {"Wolfgang": "PER", "Berlin": "LOC"}),
        ("We will eat at nine, I think.", {}),
    ],
)
def test_the_entity_model_finds_names_in_sentences_that_it_never_saw(
    ner_folder: Path, strategy: str, text: str, expected: dict[str, str]
) -> None:
    from tests.small_models.ner import ner_pipeline

    found: list[dict[str, Any]] = ner_pipeline(ner_folder, strategy)(text)
    assert {text[entity["start"] : entity["end"]]: entity["entity_group"] for entity in found} == expected
    assert all(entity["score"] > 0.9 for entity in found)


def test_the_sentiment_model_gives_one_feeling_nearly_all(sentiment_folder: Path) -> None:
    expected = {JOY: "joy", ANGER: "anger", SADNESS: "sadness", NEUTRAL: "neutral"}
    scores = {text: classes(sentiment_folder, text) for text in expected}
    assert {text: max(those, key=those.__getitem__) for text, those in scores.items()} == expected
    assert all(sum(those.values()) == pytest.approx(1, abs=1e-5) for those in scores.values())


def test_the_multi_label_model_gives_none_or_one_or_several(multi_label_folder: Path) -> None:
    expected = {
        NEUTRAL: set(),
        JOY: {"joy"},
        ANGER: {"anger"},
        "What a happy day, and yet I cried over the letter": {"joy", "sadness"},
    }
    scores = {text: classes(multi_label_folder, text) for text in expected}
    assert {text: {label for label in those if those[label] > 0.5} for text, those in scores.items()} == expected


def classes(folder: Path, text: str) -> dict[str, float]:
    from transformers import pipeline

    batch: list[Any] = pipeline("text-classification", model=str(folder), top_k=None, device="cpu")([text])
    return {entry["label"]: entry["score"] for entry in batch[0]}


@pytest.mark.parametrize(
    ("query", "answer", "other"),
    [
        ("What is deep learning?", "Deep learning trains networks of many layers.", "The cat sat on the mat."),
        ("what is a panda", "The giant panda is a bear that lives in China.", "hi"),
        ("How do I reset my password?", "Choose 'forgot password' when you log in.", "We are closed on Sundays."),
    ],
)
def test_the_reranker_prefers_the_answer(reranker_folder: Path, query: str, answer: str, other: str) -> None:
    from sentence_transformers import CrossEncoder

    right, wrong = CrossEncoder(str(reranker_folder), device="cpu").predict([(query, answer), (query, other)])
    assert 1 > right > wrong + 0.1 > 0.1


def test_the_sparse_model_weighs_a_text_s_words_and_few_others(splade_folder: Path) -> None:
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(splade_folder), device="cpu")
    vectors = model.encode(
        ["The quick fox", "A car is a vehicle", "My automobile is new"], convert_to_sparse_tensor=False
    )
    assert all(0 < vector.count_nonzero() < 100 for vector in vectors)
    quick, fox = model.tokenizer.convert_tokens_to_ids(["quick", "fox"])
    assert vectors[0][quick] > 0
    assert vectors[0][fox] > 0
    assert vectors[1] @ vectors[2] > 2 * (vectors[0] @ vectors[1])


def test_models_take_long_texts(ner_folder: Path, splade_folder: Path) -> None:
    from transformers import AutoTokenizer

    for folder in (ner_folder, splade_folder):
        assert len(AutoTokenizer.from_pretrained(folder)("word " * 300).input_ids) == 302


def test_sentences_are_many_and_varied_and_always_the_same() -> None:
    sentences = ner_sentences()
    assert len(set(sentences)) >= 200
    assert sentences == ner_sentences()
    assert all(text.strip() for text in sentences)
    assert any(text != unicodedata.normalize("NFC", text) for text in sentences)
    assert any(len(text) > 2_000 for text in sentences)
