"""Ollama's client library against a whole Heddle: both embedding calls, the list of models, and errors."""

from collections.abc import Iterator

import httpx
import numpy as np
import ollama
import pytest

from heddle.checkpoint.model_source import PACKAGED_NAME
from tests.system.served import Served

pytestmark = pytest.mark.slow

TEXTS = ["Why is the sky blue?", "Why is the grass green?"]


@pytest.fixture
def client(heddle: Served) -> Iterator[ollama.Client]:
    with ollama.Client(host=heddle.url) as own:
        yield own


def test_embeddings_are_those_of_the_model(client: ollama.Client, heddle: Served) -> None:
    expected = np.array(httpx.post(f"{heddle.url}/embed", json={"inputs": TEXTS}).json(), np.float32)
    answer = client.embed(model="all-minilm", input=TEXTS)
    assert np.allclose(np.array(answer.embeddings), expected, atol=1e-6)
    assert answer.prompt_eval_count == 16
    short = client.embed(model="all-minilm", input=TEXTS[0], dimensions=64)
    assert np.array(short.embeddings).shape == (1, 64)
    older = np.array(client.embeddings(model="all-minilm", prompt=TEXTS[0]).embedding)
    assert np.allclose(older / np.linalg.norm(older), expected[0], atol=1e-6)


def test_models_are_listed(client: ollama.Client) -> None:
    assert [model.model for model in client.list().models] == [PACKAGED_NAME]


def test_errors_have_status_and_message(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="the text is empty") as empty:
        client.embed(model="all-minilm", input=["a", ""])
    assert empty.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="the limit is 256") as long:
        client.embed(model="all-minilm", input="word " * 600, truncate=False)
    assert long.value.status_code == 400
