"""POST /, /invocations and /vertex answer what the model is for; Baseten's /predict goes to its default route."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster import gateway
from tests.http_gateway.calls import answer_to, refusal_of
from tests.kinds import http_of, write_classifier, write_reranker, write_sparse_embedder, write_token_classifier

PREDICT = "/environments/production/predict"


@pytest.mark.parametrize("path", ["/", "/invocations"])
async def test_an_embedder_embeds_and_compares(http: httpx.AsyncClient, path: str) -> None:
    assert await answer_to(http, path, inputs=["a", "b"]) == await answer_to(http, "/embed", inputs=["a", "b"])
    inputs = {"source_sentence": "a", "sentences": ["a", "b"]}
    assert await answer_to(http, path, inputs=inputs) == await answer_to(http, "/similarity", inputs=inputs)


@pytest.mark.parametrize(
    ("write", "path", "body"),
    [
        (write_classifier, "/predict", {"inputs": "a"}),
        (write_reranker, "/rerank", {"query": "a", "texts": ["b", "c"]}),
        (write_token_classifier, "/predict_tokens", {"inputs": "a"}),
        (write_sparse_embedder, "/embed_sparse", {"inputs": "a"}),
    ],
)
async def test_other_kinds_do_what_they_are_for(
    tmp_path: Path, write: Callable[[Path], Path], path: str, body: dict[str, Any]
) -> None:
    async with http_of(tmp_path, write(tmp_path / "model")) as http:
        expected = await answer_to(http, path, **body)
        assert await answer_to(http, "/", **body) == expected
        assert await answer_to(http, "/vertex", instances=[body, body]) == {"predictions": [expected, expected]}


@pytest.mark.parametrize(
    ("write", "path"),
    [
        (write_classifier, "/predict"),
        (write_reranker, "/predict"),
        (write_token_classifier, "/predict_tokens"),
        (write_sparse_embedder, "/embed_sparse"),
    ],
)
async def test_the_default_route_is_what_the_model_is_for(
    tmp_path: Path, write: Callable[[Path], Path], path: str
) -> None:
    async with http_of(tmp_path, write(tmp_path / "model")) as http:
        assert await answer_to(http, PREDICT, inputs="a") == await answer_to(http, path, inputs="a")


async def test_the_default_route_of_an_embedder_is_openais_unless_configured(
    http: httpx.AsyncClient, tokenizer: str
) -> None:
    expected = await answer_to(http, "/v1/embeddings", input="a")
    for path in (PREDICT, "/production/predict", "/v1/models/model:predict"):
        assert await answer_to(http, path, input="a") == expected
    assert await answer_to(http, "/environments/production/sync/v1/embeddings", input="a") == expected
    async with gateway(tokenizer, default_route="/embed") as url, httpx.AsyncClient(base_url=url) as other:
        assert await answer_to(other, PREDICT, inputs="a") == [expected["data"][0]["embedding"]]


async def test_one_wrong_instance_is_named_and_refuses_the_list(http: httpx.AsyncClient) -> None:
    refusal = await refusal_of(http, "/vertex", instances=[{"inputs": "a"}, {"inputs": ""}])
    assert refusal[:2] == (400, "Empty")
    assert (await refusal_of(http, "/vertex", instances=[{}]))[:2] == (400, "Validation")
    assert (await refusal_of(http, "/vertex", instances=[5]))[:2] == (400, "Validation")
    assert await answer_to(http, "/vertex", instances=[]) == {"predictions": []}
