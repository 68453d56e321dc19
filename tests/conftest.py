"""What tests share that leave it as it is: a running Heddle, and checkpoints of small models, made once in a run."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

# Read when Triton is imported, which other libraries do too: its kernels run on the CPU.
os.environ["TRITON_INTERPRET"] = "1"

import pytest
import pytest_asyncio

from tests.system.served import Served, served


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def heddle() -> AsyncIterator[Served]:
    """all-MiniLM-L6-v2 on the torch backend, in float32 whatever the machine is fast at: vectors are compared."""
    async with served("--dtype", "float32") as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def simulated() -> AsyncIterator[Served]:
    async with served("--engine", "simulated") as running:
        yield running


@pytest.fixture(scope="session")
def ner_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finds people, organisations and places."""
    from tests.small_models.ner import ner_model

    return ner_model(tmp_path_factory.mktemp("ner"))


@pytest.fixture(scope="session")
def sentiment_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says which one feeling a text has."""
    from tests.small_models.classifiers import sentiment_model

    return sentiment_model(tmp_path_factory.mktemp("sentiment"))


@pytest.fixture(scope="session")
def multi_label_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says which feelings a text has, if any."""
    from tests.small_models.classifiers import multi_label_model

    return multi_label_model(tmp_path_factory.mktemp("multi_label"))


@pytest.fixture(scope="session")
def reranker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says how well a document answers a query."""
    from tests.small_models.reranker import reranker_model

    return reranker_model(tmp_path_factory.mktemp("reranker"))


@pytest.fixture(scope="session")
def splade_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gives a text sparse weights of words."""
    from tests.small_models.sparse import splade_model

    return splade_model(tmp_path_factory.mktemp("splade"))
