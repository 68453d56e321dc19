"""Cohere's client library, with both versions of its API, against a whole Heddle."""

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
def make_client(served: Served) -> Iterator[cohere.ClientV2]:
    with httpx.Client() as http:
        yield cohere.ClientV2(api_key="any", base_url=served.url, httpx_client=http)


@contextmanager
def make_v1_client(served: Served) -> Iterator[cohere.Client]:
    with httpx.Client() as http:
        yield cohere.Client(api_key="any", base_url=served.url, httpx_client=http)


def test_version_1_embeds_in_batches(simulated: Served) -> None:
    texts = [f"text {number}" for number in range(200)]  # the library sends 96 at a time and joins the answers
    with make_v1_client(simulated) as client:
        response = client.embed(texts=texts, model="m", input_type="search_document", truncate="END")
    assert response.response_type == "embeddings_floats"
    assert isinstance(response, cohere.EmbeddingsFloatsEmbedResponse)
    answer = httpx.post(f"{simulated.url}/embed", json={"inputs": texts})
    assert np.allclose(response.embeddings, answer.json(), atol=1e-7)
    assert response.texts == texts
    assert response.meta is not None
    assert response.meta.billed_units is not None
    assert response.meta.billed_units.input_tokens == int(answer.headers["x-compute-tokens"])


def test_version_1_embeds_in_the_requested_types(simulated: Served) -> None:
    with make_v1_client(simulated) as client:
        response = client.embed(
            texts=["hello"], model="m", input_type="search_query", embedding_types=["float", "ubinary"], batching=False
        )
    assert isinstance(response, cohere.EmbeddingsByTypeEmbedResponse)
    assert response.embeddings.float_ is not None
    assert response.embeddings.ubinary is not None
    assert (len(response.embeddings.float_[0]), len(response.embeddings.ubinary[0])) == (384, 48)
    assert response.meta is not None
    assert response.meta.tokens is not None
    assert response.meta.tokens.input_tokens == 3


def test_version_1_reranks_objects_and_returns_them(reranker: Served) -> None:
    documents = [{"text": text, "id": str(number)} for number, text in enumerate(DOCUMENTS)]
    with make_v1_client(reranker) as client:
        response = client.rerank(model="m", query="which?", documents=documents, top_n=3, return_documents=True)
        with pytest.raises(cohere.BadRequestError, match="max_chunks_per_doc must be 1"):
            client.rerank(model="m", query="which?", documents=documents, max_chunks_per_doc=10)
    ranks = httpx.post(f"{reranker.url}/rerank", json={"query": "which?", "texts": DOCUMENTS}).json()[:3]
    assert [result.index for result in response.results] == [rank["index"] for rank in ranks]
    found = [result.document.model_dump() if result.document else None for result in response.results]
    assert found == [documents[rank["index"]] for rank in ranks]


def test_documents_are_cut_to_max_tokens_per_doc(reranker: Served) -> None:
    with make_client(reranker) as client:
        cut = client.rerank(model="m", query="which?", documents=["one two three"], max_tokens_per_doc=2)
        short = client.rerank(model="m", query="which?", documents=["one two"])
    assert cut.results[0].relevance_score == short.results[0].relevance_score
    assert cut.meta is not None
    assert short.meta is not None
    assert cut.meta.tokens == short.meta.tokens


def test_detokenize_inverts_tokenize(simulated: Served) -> None:
    with make_v1_client(simulated) as client:
        tokens = client.tokenize(text="hello embeddings", model="m", offline=False)
        assert tokens.token_strings == ["hello", "em", "bed", "ding", "s"]
        assert client.detokenize(tokens=tokens.tokens, model="m", offline=False).text == "hello embeddings"


def test_the_key_is_checked(simulated: Served) -> None:
    from cohere.base_client import BaseCohere

    with make_v1_client(simulated) as client:
        assert BaseCohere.check_api_key(client).valid  # cohere.Client replaces this method with a warning


def test_embed_gives_every_requested_type(simulated: Served) -> None:
    types = ["float", "int8", "base64"]
    with make_client(simulated) as client:
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
    with make_client(reranker) as client:
        response = client.rerank(model="m", query="which?", documents=DOCUMENTS, top_n=3)
    ranks = httpx.post(f"{reranker.url}/rerank", json={"query": "which?", "texts": DOCUMENTS}).json()[:3]
    assert [result.index for result in response.results] == [rank["index"] for rank in ranks]
    assert [result.relevance_score for result in response.results] == [rank["score"] for rank in ranks]


def test_refusals_are_the_librarys_own_errors(simulated: Served) -> None:
    with make_client(simulated) as client, pytest.raises(cohere.BadRequestError) as refused:
        client.embed(texts=[""], model="m", input_type="search_query", embedding_types=["float"])
    assert refused.value.body["message"] == "texts[0]: the text is empty"
