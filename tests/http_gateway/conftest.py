"""A gateway in front of a real tokenizer pod and a simulated engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.cluster import engine_pod, gateway, tokenizer_pod


@pytest.fixture
async def tokenizer(tmp_path: Path) -> AsyncIterator[str]:
    async with engine_pod(tmp_path) as engine, tokenizer_pod(tmp_path, engine) as address:
        yield address


@pytest.fixture
async def url(tokenizer: str) -> AsyncIterator[str]:
    async with gateway(tokenizer) as address:
        yield address


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client
