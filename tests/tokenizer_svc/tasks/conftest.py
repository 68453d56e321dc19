"""Pods of every kind of model over a simulated engine, called both ways: on the stream and with unary calls."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from engine_svc.backends.backend import Backend
from heddle.client import Client, InferenceClient, UnaryClient
from tests.cluster import engine_pod, tokenizer_pod

# (writer of a checkpoint, backend or None for the simulated one, settings of the tokenizer pod) -> client
Serve = Callable[..., Awaitable[InferenceClient]]


@pytest.fixture(params=[Client, UnaryClient], ids=["stream", "unary"])
async def serve(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Serve]:
    async with contextlib.AsyncExitStack() as stack:

        async def serving(write: Callable[[Path], Path], backend: Backend | None = None, **pod: Any) -> InferenceClient:
            named = {"model": str(write(tmp_path / "model")), "served_model_name": "mine"}
            engine = await stack.enter_async_context(engine_pod(tmp_path, backend, **named))
            address = await stack.enter_async_context(tokenizer_pod(tmp_path, engine, **named, **pod))
            client: InferenceClient = await stack.enter_async_context(request.param(address))
            return client

        yield serving
