"""GET /models of Infinity, and the version. /v1/models of OpenAI is tested in tests/http_gateway/test_app.py."""

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from heddle.checkpoint.model_source import PACKAGED_NAME
from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.kinds import http_of, write_classifier, write_reranker, write_sparse_embedder


async def test_infinitys_listing_is_openais_with_stats(http: httpx.AsyncClient) -> None:
    (openais,) = (await http.get("/v1/models")).json()["data"]
    (model,) = (await http.get("/models")).json()["data"]
    assert {**model, **openais} == {**model, "owned_by": "heddle"}
    assert model["owned_by"] == "infinity"
    assert (model["id"], model["backend"], model["capabilities"]) == (PACKAGED_NAME, "simulated", ["embed"])
    assert model["stats"] == {"queue_fraction": 0, "queue_absolute": 0, "results_pending": 0}
    assert set(openais) == {"id", "object", "created", "owned_by"}


async def test_stats_count_what_has_no_answer_yet(tmp_path: Path) -> None:
    async with (
        engine_pod(tmp_path, simulated_fixed_us=300_000) as engine,
        tokenizer_pod(tmp_path, engine) as tokenizer,
        gateway(tokenizer, requests_max=8) as url,
        httpx.AsyncClient(base_url=url) as http,
        asyncio.timeout(10),
    ):
        calls = [asyncio.create_task(http.post("/embed", json={"inputs": text})) for text in ("a", "b")]
        stats: dict[str, float] = {}
        while stats.get("queue_absolute") != 2:
            stats = (await http.get("/models")).json()["data"][0]["stats"]
        assert stats == {"queue_fraction": 2 / 8, "queue_absolute": 2, "results_pending": 2}
        assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}


@pytest.mark.parametrize(
    ("write", "capabilities"),
    [(write_reranker, ["rerank", "classify"]), (write_classifier, ["classify"]), (write_sparse_embedder, [])],
)
async def test_capabilities_are_those_of_the_kind(
    tmp_path: Path, write: Callable[[Path], Path], capabilities: list[str]
) -> None:
    async with http_of(tmp_path, write(tmp_path / "model")) as http:
        assert (await http.get("/models")).json()["data"][0]["capabilities"] == capabilities


async def test_the_version_needs_no_key(tokenizer: str) -> None:
    async with gateway(tokenizer, api_keys=("secret",)) as url, httpx.AsyncClient(base_url=url) as http:
        for path in ("/version", "/api/version"):
            assert (await http.get(path)).json() == {"version": version("heddle")}
        for path in ("/models", "/api/tags"):
            assert (await http.get(path)).status_code == 401
