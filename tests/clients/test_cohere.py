"""Cohere's library, version 2 of its API, against a whole Heddle."""

from collections.abc import Iterator
from contextlib import contextmanager

import cohere
import httpx
import numpy as np
import pytest

from tests.system.served import Served

pytestmark = pytest.mark.slow

DOCUMENTS = [f"document {number}" for number in range(9)]


@contextmanager
def client_of(served: Served) -> Iterator[cohere.ClientV2]:
    with httpx.Client() as http:
        yield cohere.ClientV2(api_key="any", base_url=served.url, httpx_client=http)


def test_embed_gives_every_type_that_is_asked_for(simulated: Served) -> None:
    types = ["float", "int8", "base64"]
    with client_of(simulated) as client:
        response = client.embed(
            texts=["hello", "world"], model="m", input_type="search_document", embedding_types=types
        )
    expected = httpx.post(f"{simulated.url}/embed", json={"inputs": ["hello", "world"]}).json()
    assert response.embeddings.float_ is not None
    assert np.allclose(response.embeddings.float_, expected, atol=1e-7)
    assert response.embeddings.int8 is not None
    assert np.abs(np.array(response.embeddings.int8)).max() <= 127
    assert response.embeddings.base64 is not None
    assert response.texts == ["hello", "world"]


def test_rerank_gives_the_best_first(reranker: Served) -> None:
    with client_of(reranker) as client:
        response = client.rerank(model="m", query="which?", documents=DOCUMENTS, top_n=3)
    ranks = httpx.post(f"{reranker.url}/rerank", json={"query": "which?", "texts": DOCUMENTS}).json()[:3]
    assert [result.index for result in response.results] == [rank["index"] for rank in ranks]
    assert [result.relevance_score for result in response.results] == [rank["score"] for rank in ranks]


def test_refusals_are_the_librarys_own_errors(simulated: Served) -> None:
    with client_of(simulated) as client, pytest.raises(cohere.BadRequestError) as refused:
        client.embed(texts=[""], model="m", input_type="search_query", embedding_types=["float"])
    assert refused.value.body["message"] == "texts[0]: the text is empty"
