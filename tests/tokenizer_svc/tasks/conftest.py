"""Pods of every kind of model with a fake engine, called in both ways: on the stream and with unary calls."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from heddle.checkpoint import Checkpoint
from heddle.client import Client, InferenceClient, UnaryClient
from tests.cluster import engine_pod, tokenizer_pod
from tests.tokenizer_svc.fake_engine import FakeEngine
from tokenizer_svc.engines import Engines

# (writer of a checkpoint, engine or None for the usual one, settings of the tokenizer pod) -> client
Serve = Callable[..., Awaitable[InferenceClient]]


@pytest.fixture(params=[Client, UnaryClient], ids=["stream", "unary"])
async def serve(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Serve]:
    async with contextlib.AsyncExitStack() as stack:

        async def serving(write: Callable[[Path], Path], fake: FakeEngine | None = None, **pod: Any) -> InferenceClient:
            """The tokenizer pod connects to a real engine pod, but submits to the fake."""
            folder = write(tmp_path / "model")
            checkpoint = Checkpoint.read(folder)
            fake = fake or FakeEngine()
            fake.dimension = len(checkpoint.labels) or checkpoint.dimension or checkpoint.token_dimension
            monkeypatch.setattr(Engines, "submit", lambda _, *submission: fake.submit(*submission))
            named = {"model": str(folder), "served_model_name": "mine"}
            engine = await stack.enter_async_context(engine_pod(tmp_path, None, **named))
            address = await stack.enter_async_context(tokenizer_pod(tmp_path, engine, **named, **pod))
            client: InferenceClient = await stack.enter_async_context(request.param(address))
            return client

        yield serving
