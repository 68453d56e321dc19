"""Models of the kinds that tei.v1 serves, each behind a pod of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kinds import write_classifier, write_reranker, write_sparse_embedder
from tests.tokenizer_svc.tei.served_model import ServedModel, served


@pytest.fixture
async def embedder(tmp_path: Path) -> AsyncIterator[ServedModel]:
    async with served(tmp_path) as model:
        yield model


@pytest.fixture
async def sparse_embedder(tmp_path: Path) -> AsyncIterator[ServedModel]:
    async with served(tmp_path, write_sparse_embedder) as model:
        yield model


@pytest.fixture
async def reranker(tmp_path: Path) -> AsyncIterator[ServedModel]:
    async with served(tmp_path, write_reranker) as model:
        yield model


@pytest.fixture
async def classifier(tmp_path: Path) -> AsyncIterator[ServedModel]:
    async with served(tmp_path, write_classifier) as model:
        yield model
