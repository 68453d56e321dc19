"""/openapi.json describes the routes as they are: every example in it is answered, as its schema says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.kinds import http_of, write_classifier, write_reranker, write_sparse_embedder, write_token_classifier

# What an embedder cannot answer, and the kind of model that can.
WRITE_FOR_PATH: dict[str, Callable[[Path], Path]] = {
    "/rerank": write_reranker,
    "/v1/rerank": write_reranker,
    "/v2/rerank": write_reranker,
    "/predict": write_classifier,
    "/predict_tokens": write_token_classifier,
    "/embed_sparse": write_sparse_embedder,
}


async def test_both_paths_give_one_document_of_every_route(http: httpx.AsyncClient) -> None:
    api = (await http.get("/openapi.json")).json()
    assert (await http.get("/api-doc/openapi.json")).json() == api
    assert api["openapi"].startswith("3.1")
    for path in ("/v1/embeddings", "/embed", "/predict_tokens", "/v2/embed", "/vertex", "/info"):
        assert path in api["paths"]


async def test_every_example_is_answered_as_its_schema_says(http: httpx.AsyncClient) -> None:
    api = (await http.get("/openapi.json")).json()
    for path in set(api["paths"]) - set(WRITE_FOR_PATH):
        for method, operation in api["paths"][path].items():
            await check(http, method, path.replace("{model}", "sentence-transformers/all-MiniLM-L6-v2"), operation, api)


@pytest.mark.parametrize("path", WRITE_FOR_PATH)
async def test_every_example_for_other_kinds_is_answered_as_its_schema_says(tmp_path: Path, path: str) -> None:
    async with http_of(tmp_path, WRITE_FOR_PATH[path](tmp_path / "model")) as http:
        api = (await http.get("/openapi.json")).json()
        await check(http, "post", path, api["paths"][path]["post"], api)


async def check(http: httpx.AsyncClient, method: str, path: str, operation: dict[str, Any], api: Any) -> None:
    body = operation["requestBody"]["content"]["application/json"]["example"] if method == "post" else None
    response = await http.request(method, path, json=body)
    assert response.status_code == 200, (path, response.text)
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema_rs.validate({**schema, "components": api["components"]}, response.json())


async def test_the_page_needs_nothing_but_the_document(http: httpx.AsyncClient) -> None:
    response = await http.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "openapi.json" in response.text
    assert "https://" not in response.text
