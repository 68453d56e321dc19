"""One running Heddle for all tests that leave it as it is."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.system.served import Served, served


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def heddle() -> AsyncIterator[Served]:
    """all-MiniLM-L6-v2 on the torch backend."""
    async with served() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def simulated() -> AsyncIterator[Served]:
    async with served("--engine", "simulated") as running:
        yield running
