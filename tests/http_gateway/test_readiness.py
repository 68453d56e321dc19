"""Probes of a gateway say whether a request would be answered now: the tokenizers, and their engines, are there."""

import asyncio
import contextlib
from pathlib import Path

import httpx

from tests.cluster import engine_pod, gateway, tokenizer_pod


async def test_readiness_follows_the_engines_behind_the_tokenizers(tmp_path: Path) -> None:
    async def becomes(status: int) -> None:
        async with asyncio.timeout(10):
            while (await http.get("/ready")).status_code != status:
                await asyncio.sleep(0.02)

    engines = contextlib.AsyncExitStack()
    engine = await engines.enter_async_context(engine_pod(tmp_path))
    async with (
        tokenizer_pod(tmp_path, engine) as tokenizer,
        gateway(tokenizer) as url,
        httpx.AsyncClient(base_url=url, timeout=20) as http,
    ):
        await engines.aclose()
        await becomes(503)
        for path in ("/health", "/ping", "/"):
            assert (await http.get(path)).status_code == 503
        assert (await http.get("/live")).status_code == 200
        waiting = asyncio.create_task(http.post("/v1/embeddings", json={"model": "any", "input": "warp"}))
        async with engine_pod(tmp_path):
            await becomes(200)
            assert (await waiting).status_code == 200
