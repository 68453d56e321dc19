"""The metrics of a gateway after known requests."""

from pathlib import Path

import httpx

from heddle.checkpoint.model_source import PACKAGED_NAME
from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.metrics import scrape

SECONDS = "heddle_gateway_request_seconds_count"
PATH = "/v1/embeddings"


async def test_requests_are_counted_by_route_model_and_status(tmp_path: Path) -> None:
    async with (
        engine_pod(tmp_path) as engine,
        tokenizer_pod(tmp_path, engine) as tokenizer,
        gateway(tokenizer) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        for _ in range(2):
            await http.post(PATH, json={"input": ["warp", "silk and wool"], "model": "of the caller"})
        await http.post("/vertex", json={"instances": [{"inputs": "warp"}, {"inputs": "warp"}]})
        await http.post(f"/openai{PATH}", json={})
        await http.get("/caller/made/this/up")
        await http.get("/health")
        scraped = await scrape(url)
    assert scraped.value(SECONDS, route=PATH, model=PACKAGED_NAME, status="200") == 2
    assert scraped.value(SECONDS, route=PATH, model=PACKAGED_NAME, status="400") == 1
    assert scraped.value(SECONDS, route="unmatched", model="", status="404") == 1
    assert scraped.value(SECONDS, route="/health", model="", status="200") == 1
    assert scraped.value("heddle_gateway_failures_total", code="invalid_input") == 1
    assert scraped.value("heddle_gateway_failures_total", code="overloaded") == 0
    assert scraped.value("heddle_gateway_tokens_total", route=PATH) == 16
    assert scraped.value("heddle_gateway_tokens_total", route="/vertex") == 6
    assert scraped.value("heddle_gateway_characters_total", route=PATH) == 34
    assert scraped.value("heddle_gateway_requests") == 0
    assert scraped.value("heddle_rpc_pods", model=PACKAGED_NAME, state="connected") == 1
    assert scraped.value("heddle_build_info", service="gateway", model=PACKAGED_NAME) == 1


async def test_the_model_is_one_that_is_served_or_none(tmp_path: Path) -> None:
    async with (
        engine_pod(tmp_path) as engine,
        tokenizer_pod(tmp_path, engine) as tokenizer,
        gateway(f"one={tokenizer}", f"two={tokenizer}") as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        for model in ("one", "two", "of the caller", "x" * 500):
            await http.post(PATH, json={"input": "warp", "model": model})
        scraped = await scrape(url)
    assert scraped.labels_of(SECONDS, "model") == {"one", "two", ""}
    assert scraped.value(SECONDS, route=PATH, model="", status="404") == 2
