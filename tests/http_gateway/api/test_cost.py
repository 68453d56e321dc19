"""Cost headers, counted as TEI counts: characters are code points, and a query counts once per text."""

from typing import Any

import httpx
import pytest

from heddle.v1 import item_pb2
from http_gateway.api.answers import COST_HEADERS, cost_headers
from tests.http_gateway.calls import make_request

TEXT = "Zoë 🎉"  # five code points


async def characters(http: httpx.AsyncClient, path: str, **body: Any) -> int:
    response = await http.post(path, json=body)
    assert response.status_code == 200, response.text
    return int(response.headers["x-compute-characters"])


async def test_characters_of_embeddings_are_those_of_the_texts(http: httpx.AsyncClient) -> None:
    assert await characters(http, "/embed", inputs=TEXT) == 5
    assert await characters(http, "/v1/embeddings", input=[TEXT, "abc", "x" * 2000]) == 5 + 3 + 2000
    assert await characters(http, "/embed", inputs=[[101, 7592, 102], "ab"]) == 3 + 2
    assert await characters(http, "/v2/embed", texts=[TEXT]) == 5
    inputs = {"source_sentence": "ab", "sentences": ["c", "def"]}
    assert await characters(http, "/similarity", inputs=inputs) == 2 + 1 + 3


async def test_characters_of_a_query_count_for_each_text(reranker: httpx.AsyncClient) -> None:
    assert await characters(reranker, "/rerank", query=TEXT, texts=["a", "bcd"]) == 2 * 5 + 1 + 3
    assert await characters(reranker, "/v2/rerank", query=TEXT, documents=["a", "bcd"], top_n=1) == 2 * 5 + 1 + 3


async def test_characters_of_pairs_are_those_of_both(classifier: httpx.AsyncClient) -> None:
    assert await characters(classifier, "/predict", inputs=[[TEXT], ["ab", "cde"]]) == 5 + 2 + 3


@pytest.mark.parametrize(("device", "type_"), [("cuda", "gpu+optimized"), ("cpu", "cpu"), ("", "cpu")])
def test_compute_type_is_the_device(device: str, type_: str) -> None:
    headers = dict(cost_headers(make_request(), item_pb2.Usage(device=device), item_pb2.Timings()))
    assert headers["x-compute-type"] == type_
    assert headers["x-compute-time"] == headers["x-total-time"]
    assert list(headers) == list(COST_HEADERS)
