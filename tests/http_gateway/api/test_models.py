"""GET /models of Infinity, the version, and /info of TEI for every kind of model.

tests/http_gateway/test_app.py tests /v1/models.
"""

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

from heddle.checkpoint.model_source import PACKAGED_NAME
from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.kinds import (
    EMOTIONS,
    TAGS,
    http_of,
    write_classifier,
    write_multi_vector_embedder,
    write_reranker,
    write_sparse_embedder,
    write_token_classifier,
)


async def test_infinitys_listing_is_openais_with_stats(http: httpx.AsyncClient) -> None:
    (openais,) = (await http.get("/v1/models")).json()["data"]
    (model,) = (await http.get("/models")).json()["data"]
    assert {**model, **openais} == {**model, "owned_by": "heddle"}
    assert model["owned_by"] == "infinity"
    assert (model["id"], model["backend"], model["capabilities"]) == (PACKAGED_NAME, "simulated", ["embed"])
    assert model["stats"] == {"queue_fraction": 0, "queue_absolute": 0, "results_pending": 0}
    assert set(openais) == {"id", "object", "created", "owned_by"}


async def test_stats_count_unanswered_calls(tmp_path: Path) -> None:
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
async def test_capabilities_follow_the_kind(
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


async def test_an_embedder_names_its_pooling_and_limits(http: httpx.AsyncClient) -> None:
    info = (await http.get("/info")).json()
    assert info["model_id"] == PACKAGED_NAME
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["max_input_length"], info["dimension"], info["max_client_batch_size"]) == (256, 384, 2048)
    assert (info["auto_truncate"], info["tokenization_workers"]) == (True, 1)
    assert (info["sha"], info["docker_label"]) == (None, None)
    assert (await http.get(f"/info/{PACKAGED_NAME}")).json() == info
    assert (await http.get("/info/gpt-2")).status_code == 404


async def test_info_of_several_models_names_the_path_of_each(tmp_path: Path) -> None:
    async with (
        engine_pod(tmp_path) as engine,
        tokenizer_pod(tmp_path, engine) as tokenizer,
        gateway(f"one={tokenizer}", f"two={tokenizer}") as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        refusal = await http.get("/info")
        assert refusal.status_code == 400
        assert refusal.json()["error"] == "several models are served: ask for one of /info/one, /info/two"
        assert (await http.get("/info/two")).json()["served_model_name"] == "two"


@pytest.mark.parametrize(
    ("write", "kind", "labels"),
    [
        (write_classifier, "classifier", EMOTIONS),
        (write_reranker, "reranker", ["LABEL_0"]),
        (write_token_classifier, "token_classifier", TAGS),
    ],
)
async def test_classifiers_name_their_labels(
    tmp_path: Path, write: Callable[[Path], Path], kind: str, labels: Any
) -> None:
    async with http_of(tmp_path, write(tmp_path / "model")) as http:
        info = (await http.get("/info")).json()
        assert info["model_type"][kind]["id2label"] == {str(index): label for index, label in enumerate(labels)}
        assert info["model_type"][kind]["label2id"] == {label: index for index, label in enumerate(labels)}


@pytest.mark.parametrize(
    ("write", "pooling"), [(write_sparse_embedder, "splade"), (write_multi_vector_embedder, "none")]
)
async def test_other_embedders_report_what_replaces_pooling(
    tmp_path: Path, write: Callable[[Path], Path], pooling: str
) -> None:
    async with http_of(tmp_path, write(tmp_path / "model")) as http:
        assert (await http.get("/info")).json()["model_type"] == {"embedding": {"pooling": pooling}}


@pytest.mark.parametrize("truncate", [True, False])
async def test_auto_truncate_is_the_pods_setting(tmp_path: Path, truncate: bool) -> None:
    async with (
        engine_pod(tmp_path) as engine,
        tokenizer_pod(tmp_path, engine, truncate=truncate) as tokenizer,
        gateway(tokenizer) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        assert (await http.get("/info")).json()["auto_truncate"] is truncate
