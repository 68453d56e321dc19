"""/openapi.json describes the routes: every example in it is accepted, and the answer has the shape of its schema."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import jsonschema_rs
import pytest

from heddle.checkpoint.model_source import PACKAGED_NAME
from tests.cluster import gateway
from tests.http_gateway.calls import COSTS
from tests.kinds import (
    http_of,
    write_classifier,
    write_multi_vector_embedder,
    write_reranker,
    write_sparse_embedder,
    write_token_classifier,
)

# What an embedder cannot answer, and the kind of model that can.
WRITE_FOR_PATH: dict[str, Callable[[Path], Path]] = {
    "/rerank": write_reranker,
    "/v1/rerank": write_reranker,
    "/v2/rerank": write_reranker,
    "/score": write_reranker,
    "/v1/score": write_reranker,
    "/classify": write_classifier,
    "/predict": write_classifier,
    "/predict_tokens": write_token_classifier,
    "/embed_sparse": write_sparse_embedder,
}

# Paths that run the task of the served model.
TASK_PATHS = ("/", "/invocations", "/vertex", "/environments/{environment}/predict", "/v1/models/model:predict")


async def test_both_paths_give_one_document_of_every_route(http: httpx.AsyncClient) -> None:
    api = (await http.get("/openapi.json")).json()
    assert (await http.get("/api-doc/openapi.json")).json() == api
    assert api["openapi"].startswith("3.1")
    for path in ("/v1/embeddings", "/embed", "/predict_tokens", "/v2/embed", "/vertex", "/info", "/metrics"):
        assert path in api["paths"]


async def test_cost_headers_request_ids_and_basetens_paths_are_described(http: httpx.AsyncClient) -> None:
    api = (await http.get("/openapi.json")).json()
    for path in ("/v1/embeddings", "/embed", "/rerank", "/predict", "/predict_tokens", "/v2/embed", "/"):
        assert {*COSTS, "x-truncated-inputs", "x-request-id"} <= set(header_names(api, "post", path))
    assert header_names(api, "get", "/v1/models") == ["x-request-id"]
    assert {"/environments/{environment}/predict", "/v1/models/model:predict"} < set(api["paths"])
    assert [server["url"] for server in api["servers"]] == ["/", "/environments/{environment}/sync", "/openai"]
    assert (await http.get("/environments/production/sync/openapi.json")).json() == api
    assert not [path for path in api["paths"] if path.startswith("/openai/v1")]


async def test_vertex_instances_are_described_as_the_bodies_of_the_root(http: httpx.AsyncClient) -> None:
    api = (await http.get("/openapi.json")).json()

    def body(path: str) -> Any:
        return api["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]

    assert len(body("/")["anyOf"]) == 8
    assert body("/vertex")["required"] == ["instances"]
    assert body("/vertex")["properties"]["instances"]["items"] == body("/")


def header_names(api: Any, method: str, path: str) -> list[str]:
    return list(api["paths"][path][method]["responses"]["200"]["headers"])


async def test_every_example_is_answered_as_its_schema_says(http: httpx.AsyncClient) -> None:
    api = (await http.get("/openapi.json")).json()
    for path in set(api["paths"]) - set(WRITE_FOR_PATH):
        for method, operation in api["paths"][path].items():
            await check(http, method, path.format(model=PACKAGED_NAME, environment="production"), operation, api)


@pytest.mark.parametrize("path", WRITE_FOR_PATH)
async def test_every_example_for_other_kinds_is_answered_as_its_schema_says(tmp_path: Path, path: str) -> None:
    async with http_of(tmp_path, WRITE_FOR_PATH[path](tmp_path / "model")) as http:
        api = (await http.get("/openapi.json")).json()
        await check(http, "post", path, api["paths"][path]["post"], api)


@pytest.mark.parametrize(
    ("write", "first"),
    [
        (write_reranker, "/rerank"),
        (write_classifier, "/predict"),
        (write_token_classifier, "/predict_tokens"),
        (write_sparse_embedder, "/embed_sparse"),
        (write_multi_vector_embedder, "/embed_all"),
    ],
)
async def test_the_route_of_the_models_kind_comes_first_and_examples_fit_the_model(
    tmp_path: Path, write: Callable[[Path], Path], first: str
) -> None:
    async with http_of(tmp_path, write(tmp_path / "model")) as http:
        api = (await http.get("/openapi.json")).json()
        assert (next(iter(api["paths"])), api["x-default-route"]) == (first, first)
        for path in (first, *TASK_PATHS):
            await check(http, "post", path.format(environment="production"), api["paths"][path]["post"], api)


async def test_an_embedders_first_route_is_openais_unless_the_gateway_is_set_to_another(
    http: httpx.AsyncClient, tokenizer: str
) -> None:
    assert first_path((await http.get("/openapi.json")).json()) == "/v1/embeddings"
    async with gateway(tokenizer, default_route="/v2/embed") as url, httpx.AsyncClient(base_url=url) as other:
        api = (await other.get("/openapi.json")).json()
        assert first_path(api) == "/v2/embed"
        for path in TASK_PATHS:
            await check(other, "post", path.format(environment="production"), api["paths"][path]["post"], api)
        default = api["paths"]["/"]["post"]
    assert default["summary"] == "The default route, which is /v2/embed here."
    assert default["requestBody"] == api["paths"]["/v2/embed"]["post"]["requestBody"]


def first_path(api: Any) -> str:
    first: str = next(iter(api["paths"]))
    assert api["x-default-route"] == first
    return first


async def test_the_page_opens_the_default_route(http: httpx.AsyncClient) -> None:
    page = (await http.get("/docs")).text
    assert 'const first = api["x-default-route"]' in page
    assert "box.open = path === first" in page


async def check(http: httpx.AsyncClient, method: str, path: str, operation: dict[str, Any], api: Any) -> None:
    body = operation["requestBody"]["content"]["application/json"]["example"] if "requestBody" in operation else None
    response = await http.request(method, path, json=body)
    assert response.status_code == 200, (path, response.text)
    (content_type, content), *_ = operation["responses"]["200"]["content"].items()
    assert response.headers["content-type"].startswith(content_type)
    answer = response.json() if content_type == "application/json" else response.text
    jsonschema_rs.validate({**content["schema"], "components": api["components"]}, answer)
    assert set(operation["responses"]["200"].get("headers", ())) <= set(response.headers)


async def test_the_page_needs_nothing_but_the_document(http: httpx.AsyncClient) -> None:
    response = await http.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert 'fetch("openapi.json")' in response.text
    assert "https://" not in response.text


@pytest.mark.parametrize("prefix", ["", "/environments/production/sync", "/production/sync"])
@pytest.mark.parametrize("slash", ["", "/", "//"])
async def test_the_page_works_behind_any_prefix_and_slash(http: httpx.AsyncClient, prefix: str, slash: str) -> None:
    """Does what the page's script does: it derives a base from the page's own address, and all others are relative."""
    page = await http.get(f"{prefix}/docs{slash}")
    assert 'createElement("base"), {href: location.pathname.replace(/docs\\/*$/, "")}' in page.text
    assert page.text.index('createElement("base")') < page.text.index("href=")
    assert 'fetch(path.replace(/^\\//, "")' in page.text
    base = str(http.base_url).rstrip("/") + re.sub("docs/*$", "", f"{prefix}/docs{slash}")
    assert (await http.get(urljoin(base, "openapi.json"))).status_code == 200
    for path in ("/", "/embed"):
        address = urljoin(base, path.removeprefix("/"))
        assert (await http.post(address, json={"inputs": "a"})).status_code == 200
