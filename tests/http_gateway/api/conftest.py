"""Gateways to other models than the embedder of `http`."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from heddle.checkpoint.model_source import PACKAGED_NAME, locate
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


@pytest.fixture
async def prompted(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The embedder with prompts for queries and passages."""
    model = tmp_path / "model"
    shutil.copytree(locate(PACKAGED_NAME, None), model)
    prompts = {"query": "query: ", "passage": "passage: "}
    (model / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    async with http_of(tmp_path, model) as http:
        yield http
