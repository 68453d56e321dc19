"""A running Heddle for each kind of model, with a simulated engine, for tests of the clients."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.kinds import (
    write_classifier,
    write_multi_vector_embedder,
    write_reranker,
    write_sparse_embedder,
    write_token_classifier,
)
from tests.system.served import Served, served

Write = Callable[[Path], Path]


def serving(write: Write, folder: Path) -> AbstractAsyncContextManager[Served]:
    return served("--engine", "simulated", "--model", str(write(folder)))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def reranker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(write_reranker, tmp_path_factory.mktemp("reranker")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def classifier(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(write_classifier, tmp_path_factory.mktemp("classifier")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sparse_embedder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(write_sparse_embedder, tmp_path_factory.mktemp("sparse_embedder")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def multi_vector_embedder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(write_multi_vector_embedder, tmp_path_factory.mktemp("multi_vector_embedder")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tagger(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(write_token_classifier, tmp_path_factory.mktemp("tagger")) as running:
        yield running
