"""GET /models of Infinity, and the version. /v1/models of OpenAI is tested in tests/http_gateway/test_app.py."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from heddle.model_source import PACKAGED_NAME
from tests.cluster import gateway
from tests.kinds import http_of, write_classifier, write_reranker, write_sparse_embedder


async def test_infinitys_listing_is_openais_with_stats(http: httpx.AsyncClient) -> None:
    (openais,) = (await http.get("/v1/models")).json()["data"]
    (model,) = (await http.get("/models")).json()["data"]
    assert {**model, **openais} == {**model, "owned_by": "heddle"}
    assert model["owned_by"] == "infinity"
    assert (model["id"], model["backend"], model["capabilities"]) == (PACKAGED_NAME, "simulated", ["embed"])
    assert model["stats"] == {"queue_fraction": 0, "queue_absolute": 0, "results_pending": 0}
    assert set(openais) == {"id", "object", "created", "owned_by"}


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
