"""Hugging Face's InferenceClient with the server's address as its model, as it is used with TEI."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.ner_sentences import ner_sentences
from tests.small_models.ner import ner_pipeline
from tests.system.served import Served, served

pytestmark = pytest.mark.slow

SENTENCES = ner_sentences(40)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ner(ner_folder: Path) -> AsyncIterator[Served]:
    """Real weights in float32, because the tests compare scores."""
    async with served("--model", str(ner_folder), "--dtype", "float32") as running:
        yield running


def test_feature_extraction_embeds(heddle: Served) -> None:
    client = InferenceClient(model=heddle.url)
    expected = np.array(httpx.post(f"{heddle.url}/embed", json={"inputs": ["hello", "world"]}).json(), np.float32)
    assert np.allclose(client.feature_extraction(["hello", "world"]), expected, atol=1e-6)
    assert np.allclose(client.feature_extraction("hello"), expected[:1], atol=1e-6)
    cut = client.feature_extraction("word " * 600, truncate=True, truncation_direction="left", normalize=False)
    assert cut.shape == (1, 384)
    with pytest.raises(HfHubHTTPError, match="413"):
        client.feature_extraction("word " * 600, truncate=False)


def test_sentence_similarity_finds_the_nearest(heddle: Served) -> None:
    scores = InferenceClient(model=heddle.url).sentence_similarity(
        "Machine learning is so easy.",
        other_sentences=["Deep learning is so straightforward.", "I can't believe how much I struggled with this."],
    )
    assert scores[0] > scores[1]


def test_text_classification_gives_every_label(classifier: Served) -> None:
    client = InferenceClient(model=classifier.url)
    expected = httpx.post(f"{classifier.url}/predict", json={"inputs": "hello"}).json()
    found = [{"score": element.score, "label": element.label} for element in client.text_classification("hello")]
    assert found == expected
    assert len(client.text_classification("hello", top_k=2)) == 2


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_token_classification_equals_the_pipelines(ner: Served, ner_folder: Path, strategy: Any) -> None:
    client = InferenceClient(model=ner.url)
    expected: Any = ner_pipeline(ner_folder, strategy)(SENTENCES)
    compared = 0
    for text, rows in zip(SENTENCES, expected, strict=True):
        found = client.token_classification(text, aggregation_strategy=strategy)
        named = [(item.entity, item.entity_group, item.word, item.start, item.end) for item in found]
        keys = ("entity", "entity_group", "word", "start", "end")
        assert named == [tuple(row.get(key) for key in keys) for row in rows], text
        assert [item.score for item in found] == pytest.approx([row["score"] for row in rows], abs=1e-4)
        assert [item.get("index") for item in found] == [row.get("index") for row in rows]
        compared += len(rows)
    assert compared > len(SENTENCES)


def test_token_classification_aggregates_by_default(ner: Served, ner_folder: Path) -> None:
    client = InferenceClient(model=ner.url)
    text = "Apple is looking at buying U.K. startup for $1 billion"
    assert client.token_classification(text) == client.token_classification(text, aggregation_strategy="simple")
    assert {item.entity_group for item in client.token_classification(text)} == {"ORG", "LOC"}
    ignoring: Any = ner_pipeline(ner_folder, "max")(text, ignore_labels=["ORG"])
    found = client.token_classification(text, aggregation_strategy="max", ignore_labels=["ORG"])
    assert [(item.entity_group, item.word) for item in found] == [
        (row["entity_group"], row["word"]) for row in ignoring
    ]
    assert "O" in {item.entity_group for item in found}
    assert client.token_classification(text, stride=8) == client.token_classification(text)
    with pytest.raises(HfHubHTTPError, match="stride: long texts"):
        client.token_classification("word " * 600, stride=8)
