"""Baseten's performance client against a whole Heddle: all its calls, over HTTP/1.1 and HTTP/2."""

import asyncio
import time
from typing import Any

import httpx
import numpy as np
import pytest
import requests
from baseten_performance_client import PerformanceClient, RequestProcessingPreference

from heddle.checkpoint.model_source import PACKAGED_NAME
from tests.kinds import EMOTIONS
from tests.system.served import Served, served

pytestmark = pytest.mark.slow

TEXTS = [f"text number {number}" for number in range(300)]


@pytest.fixture(params=[1, 2], ids=["http1", "http2"])
def http_version(request: pytest.FixtureRequest) -> int:
    version: int = request.param
    return version


def make_client(served: Served, http_version: int = 1) -> PerformanceClient:
    return PerformanceClient(base_url=served.url, api_key="any", http_version=http_version)


def post(served: Served, path: str, **body: Any) -> Any:
    response = httpx.post(served.url + path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_embed_gives_a_row_for_every_text_in_order(simulated: Served, http_version: int) -> None:
    response = make_client(simulated, http_version).embed(input=TEXTS, model=PACKAGED_NAME)
    expected = post(simulated, "/embed", inputs=TEXTS)
    assert np.array_equal(response.numpy(), np.array(expected, np.float32))
    assert [item.index for item in response.data] == list(range(len(TEXTS)))
    assert response.model == PACKAGED_NAME
    assert response.usage.total_tokens == post(simulated, "/v1/embeddings", input=TEXTS)["usage"]["total_tokens"]
    assert all(int(headers["x-compute-tokens"]) > 0 for headers in response.response_headers)


def test_embed_takes_dimensions_and_base64(simulated: Served) -> None:
    client = make_client(simulated)
    assert client.embed(input=TEXTS[:9], model="m", dimensions=8).numpy().shape == (9, 8)
    encoded = client.embed(input=TEXTS[:1], model="m", encoding_format="base64")
    assert isinstance(encoded.data[0].embedding, str)


def test_rerank_keeps_the_index_of_every_text(reranker: Served, http_version: int) -> None:
    response = make_client(reranker, http_version).rerank(query="which?", texts=TEXTS[:50], return_text=True)
    expected = {rank["index"]: rank["score"] for rank in post(reranker, "/rerank", query="which?", texts=TEXTS[:50])}
    assert {item.index: pytest.approx(item.score, abs=1e-6) for item in response.data} == expected
    assert all(item.text == TEXTS[item.index] for item in response.data)


def test_classify_gives_all_labels_of_every_text(classifier: Served, http_version: int) -> None:
    response = make_client(classifier, http_version).classify(inputs=TEXTS[:50])
    assert len(response.data) == 50
    expected = post(classifier, "/predict", inputs=[[text] for text in TEXTS[:50]])
    for row, predictions in zip(response.data, expected, strict=True):
        assert {result.label for result in row} == set(EMOTIONS)
        assert [result.label for result in row] == [prediction["label"] for prediction in predictions]


def test_batch_post_reaches_every_route(tagger: Served, http_version: int) -> None:
    client = make_client(tagger, http_version)
    payloads = [{"inputs": [[text]], "raw_scores": True} for text in TEXTS[:20]]
    response = client.batch_post(url_path="/predict_tokens", payloads=payloads)
    assert [len(data) for data in response.data] == [1] * 20
    assert {token["token"] for token in response.data[0][0]} >= {"[CLS]", "text", "number", "[SEP]"}
    (models,) = client.batch_post(url_path="/v1/models", payloads=[{}], method="GET").data
    assert models["object"] == "list"


def test_long_text_is_refused_once_with_a_clear_error(reranker: Served) -> None:
    with pytest.raises(requests.exceptions.HTTPError) as refused:
        make_client(reranker).rerank(query="which?", texts=["word " * 600])
    assert refused.value.args[0] == 413
    assert "the limit is 256 tokens" in refused.value.args[1]
    assert make_client(reranker).rerank(query="which?", texts=["word " * 600], truncate=True).data[0].index == 0


async def test_many_batches_at_once_lose_nothing(simulated: Served, http_version: int) -> None:
    client = make_client(simulated, http_version)
    preference = RequestProcessingPreference(batch_size=8, max_concurrent_requests=256)
    texts = [f"{call} {number}" for call in range(4) for number in range(1000)]
    responses = await asyncio.gather(
        *(
            client.async_embed(input=texts[start : start + 1000], model="m", preference=preference)
            for start in range(0, 4000, 1000)
        )
    )
    rows = np.concatenate([response.numpy() for response in responses])
    assert np.array_equal(rows[3333], np.array(post(simulated, "/embed", inputs=texts[3333])[0], np.float32))
    assert len(np.unique(rows, axis=0)) == 4000


async def test_hedged_requests_are_cancelled_and_cost_the_caller_nothing() -> None:
    slow = {"HEDDLE_ENGINE_SIMULATED_FIXED_US": "400000"}
    async with served("--engine", "simulated", **slow) as running:
        preference = RequestProcessingPreference(batch_size=1, hedge_delay=0.05, hedge_budget_pct=3.0)
        started = time.monotonic()
        response = await make_client(running).async_embed(input=TEXTS[:8], model="m", preference=preference)
        assert len(response.data) == 8
        assert time.monotonic() - started < 10
        metrics = (await asyncio.to_thread(httpx.get, running.url + "/metrics")).text
        assert 'route="/v1/embeddings",status="499"} ' in metrics
