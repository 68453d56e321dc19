"""Gateways to models of other kinds than the embedder of `http`."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.kinds import http_of, write_classifier, write_reranker, write_token_classifier


@pytest.fixture
async def reranker(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with http_of(tmp_path, write_reranker(tmp_path / "model")) as http:
        yield http


@pytest.fixture
async def classifier(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with http_of(tmp_path, write_classifier(tmp_path / "model")) as http:
        yield http


@pytest.fixture
async def tagger(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with http_of(tmp_path, write_token_classifier(tmp_path / "model")) as http:
        yield http
