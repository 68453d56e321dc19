"""Pods inside the test's event loop, wired as their processes wire themselves, over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import engine_svc.__main__ as engine
import tokenizer_svc.__main__ as tokenizer
from engine_svc.backends.backend import Backend
from engine_svc.backends.loading import load_backend
from engine_svc.settings import EngineSettings
from heddle.readiness import grpc_ready
from tokenizer_svc.settings import TokenizerSettings

READY_S_MAX = 10.0


@asynccontextmanager
async def engine_pod(folder: Path, backend: Backend | None = None, **settings: Any) -> AsyncIterator[str]:
    """The address of an engine pod that is ready; its backend is simulated, or the one that is given."""
    defaults = {"backend": "simulated", "simulated_fixed_us": 100, "simulated_per_token_ns": 0}
    address = settings.pop("address", f"unix:{folder}/engine")
    own = EngineSettings(listen=(address,), **{**defaults, **settings})
    with patch.object(engine, "load_backend", (lambda *_: backend) if backend else load_backend):
        async with running(lambda stop: engine.serve(own, stop), address, "heddle.v1.EngineService"):
            yield address


@asynccontextmanager
async def tokenizer_pod(folder: Path, *engines: str, **settings: Any) -> AsyncIterator[str]:
    """The address of a tokenizer pod that is ready."""
    address = settings.pop("address", f"unix:{folder}/tokenizer")
    own = TokenizerSettings(listen=(address,), engines=engines, **settings)
    async with running(lambda stop: tokenizer.serve(own, stop), address, "heddle.v1.InferenceService"):
        yield address


@asynccontextmanager
async def running(
    serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]], address: str, service: str
) -> AsyncIterator[None]:
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(stop))
    async with asyncio.timeout(READY_S_MAX):
        while not await grpc_ready(address, service):
            if serving.done():
                serving.result()
            await asyncio.sleep(0.01)
    try:
        yield
    finally:
        stop.set()
        await serving
