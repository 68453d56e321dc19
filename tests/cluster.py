"""Pods inside the test's event loop, wired as their processes wire themselves, on real sockets."""

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import engine_svc.pod as engine
import http_gateway.__main__ as http_gateway
import tokenizer_svc.__main__ as tokenizer
from engine_svc.backends import Backend
from engine_svc.backends.loading import load_backend
from engine_svc.settings import EngineSettings
from heddle.cli.readiness import grpc_ready, http_ready
from http_gateway.settings import GatewaySettings
from tokenizer_svc.settings import TokenizerSettings

READY_S_MAX = 10.0
ENGINE = "heddle.v1.EngineService"
TOKENIZER = "heddle.v1.InferenceService"


@asynccontextmanager
async def engine_pod(folder: Path, backend: Backend | None = None, **settings: Any) -> AsyncIterator[str]:
    """Yields the address of an engine pod that is ready. Its backend is simulated by default."""
    defaults = {"backend": "simulated", "simulated_fixed_us": 100, "simulated_per_token_ns": 0, "metrics_port": None}
    address = settings.pop("address", f"unix:{folder}/engine")
    own = EngineSettings(listen=(address,), **{**defaults, **settings})
    with patch.object(engine, "load_backend", (lambda *_: backend) if backend else load_backend):
        async with running(lambda stop: engine.serve(own, stop), functools.partial(grpc_ready, address, ENGINE)):
            yield address


@asynccontextmanager
async def tokenizer_pod(folder: Path, *engines: str, **settings: Any) -> AsyncIterator[str]:
    """Yields the address of a tokenizer pod that is ready."""
    address = settings.pop("address", f"unix:{folder}/tokenizer")
    own = TokenizerSettings(listen=(address,), engines=engines, **{"metrics_port": None, **settings})
    async with running(lambda stop: tokenizer.serve(own, stop), functools.partial(grpc_ready, address, TOKENIZER)):
        yield address


@asynccontextmanager
async def gateway(*tokenizers: str, stop: asyncio.Event | None = None, **settings: Any) -> AsyncIterator[str]:
    """Yields the URL of a gateway that is ready. `stop` starts to drain it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = GatewaySettings(port=port, tokenizers=tokenizers, **settings)
    probe = functools.partial(http_ready, f"127.0.0.1:{port}")
    async with running(lambda stop: http_gateway.serve(own, stop), probe, stop):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def running(
    serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]],
    is_ready: Callable[[], Awaitable[bool]],
    stop: asyncio.Event | None = None,
) -> AsyncIterator[None]:
    stop = stop or asyncio.Event()
    serving = asyncio.create_task(serve(stop))
    async with asyncio.timeout(READY_S_MAX):
        while not await is_ready():
            if serving.done():
                serving.result()
            await asyncio.sleep(0.01)
    try:
        yield
    finally:
        stop.set()
        await serving
