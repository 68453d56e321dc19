"""Azure's path for embeddings: the deployment in the path is the model."""

from urllib.parse import quote

import httpx

from heddle.checkpoint.model_source import PACKAGED_NAME
from tests.cluster import gateway
from tests.http_gateway.calls import answer_to

BODY = {"input": ["hello", "hello world"]}


async def test_the_answer_is_that_of_openais_route(http: httpx.AsyncClient) -> None:
    expected = await answer_to(http, "/v1/embeddings", **BODY)
    for path in (
        "/openai/deployments/mine/embeddings?api-version=2024-10-21",
        f"/openai/deployments/{PACKAGED_NAME}/embeddings",
        f"/openai/deployments/{quote(PACKAGED_NAME, safe='')}/embeddings/",
    ):
        assert await answer_to(http, path, **BODY) == expected
        assert await answer_to(http, path, **BODY, model="whatever") == expected


async def test_the_deployment_selects_the_model(tokenizer: str) -> None:
    async with gateway(f"a/one={tokenizer}", f"two={tokenizer}") as url, httpx.AsyncClient(base_url=url) as http:
        for name in ("a/one", "two"):
            answer = await answer_to(http, f"/openai/deployments/{name}/embeddings", **BODY, model="three")
            assert answer["model"] == name
        missing = await http.post("/openai/deployments/three/embeddings", json=BODY)
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_other_paths_of_deployments_are_404_and_other_methods_405(http: httpx.AsyncClient) -> None:
    for path in ("/openai/deployments/embeddings", "/openai/deployments//embeddings", "/openai/deployments/a/chat"):
        assert (await http.post(path, json=BODY)).status_code == 404
    assert (await http.get("/openai/deployments/a/embeddings")).status_code == 405
