"""Fixtures that are made once per run and not changed: a running Heddle, and checkpoints of small models."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

# Read when Triton is imported, which other libraries do too: its kernels run on the CPU.
os.environ["TRITON_INTERPRET"] = "1"

import pytest
import pytest_asyncio

from tests.bucket_servers import BucketServer, serve_azure, serve_gcs, serve_s3
from tests.system.served import Served, served


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def heddle() -> AsyncIterator[Served]:
    """all-MiniLM-L6-v2 on the torch backend. It runs in float32 on every machine because tests compare its vectors."""
    async with served("--dtype", "float32") as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def simulated() -> AsyncIterator[Served]:
    async with served("--engine", "simulated") as running:
        yield running


@pytest.fixture(scope="session")
def ner_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token classifier for people, organisations and places."""
    from tests.small_models.ner import ner_model

    return ner_model(tmp_path_factory.mktemp("ner"))


@pytest.fixture(scope="session")
def sentiment_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that finds the one feeling in a text."""
    from tests.small_models.classifiers import sentiment_model

    return sentiment_model(tmp_path_factory.mktemp("sentiment"))


@pytest.fixture(scope="session")
def multi_label_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multi-label classifier that finds all feelings in a text."""
    from tests.small_models.classifiers import multi_label_model

    return multi_label_model(tmp_path_factory.mktemp("multi_label"))


@pytest.fixture(scope="session")
def reranker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reranker of questions and answers."""
    from tests.small_models.reranker import reranker_model

    return reranker_model(tmp_path_factory.mktemp("reranker"))


@pytest.fixture(scope="session")
def splade_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse embedder."""
    from tests.small_models.sparse import splade_model

    return splade_model(tmp_path_factory.mktemp("splade"))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[BucketServer]:
    with serve_s3() as server:
        yield server


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[BucketServer]:
    with serve_gcs() as server:
        yield server


@pytest.fixture(scope="session")
def azure_server() -> Iterator[BucketServer]:
    with serve_azure() as server:
        yield server
