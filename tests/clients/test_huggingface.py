"""Hugging Face's InferenceClient with the server's address as its model: what it was made for TEI with."""

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.system.served import Served

pytestmark = pytest.mark.slow


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
