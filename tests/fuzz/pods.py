"""Pods and gateways for models of every kind, in this process, whose sockets the fuzzing tests call."""

import asyncio
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from heddle.rpc.channels import open_channel
from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.kinds import (
    write_classifier,
    write_config,
    write_multi_vector_embedder,
    write_reranker,
    write_sparse_embedder,
    write_token_classifier,
)

T = TypeVar("T")

WRITERS = {
    "embedder": lambda folder: write_config(folder, "BertModel", ()),
    "reranker": write_reranker,
    "classifier": write_classifier,
    "token classifier": write_token_classifier,
    "sparse embedder": write_sparse_embedder,
    "multi-vector embedder": write_multi_vector_embedder,
}
KINDS = tuple(WRITERS)

# Far more than any input needs.
ANSWER_S_MAX = 20.0


@dataclass(frozen=True)
class Pods:
    """The three services for one model."""

    http: httpx.AsyncClient
    tokenizer: grpc.aio.Channel
    engine: grpc.aio.Channel


class World:
    """Starts the pods of a kind when they are first wanted. They run while it runs something."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._folder = tempfile.TemporaryDirectory()
        self._pods: dict[str, Pods] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Raises TimeoutError for what hangs."""
        return self._loop.run_until_complete(asyncio.wait_for(work, ANSWER_S_MAX))

    def pods(self, kind: str) -> Pods:
        if kind not in self._pods:
            self._pods[kind] = self.run(self._start(kind))
        return self._pods[kind]

    async def _start(self, kind: str) -> Pods:
        folder = Path(self._folder.name, kind.replace(" ", "-"))
        named: dict[str, Any] = {"model": str(WRITERS[kind](folder / "model")), "served_model_name": "small"}
        enter = self._stack.enter_async_context
        engine = await enter(engine_pod(folder, **named))
        tokenizer = await enter(tokenizer_pod(folder, engine, **named))
        url = await enter(gateway(tokenizer))
        return Pods(
            await enter(httpx.AsyncClient(base_url=url)),
            await enter(open_channel(tokenizer)),
            await enter(open_channel(engine)),
        )

    def close(self) -> None:
        self.run(self._stack.aclose())
        self._loop.close()
        self._folder.cleanup()
        world.cache_clear()


@cache
def world() -> World:
    """The only one. Whoever uses it closes it."""
    return World()


async def call(channel: grpc.aio.Channel, method: MethodDescriptor, requests: Sequence[Message]) -> list[Any]:
    """All responses to the requests, of which a unary call takes the first. Raises AioRpcError."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    codec: Any = (type(requests[0]).SerializeToString, GetMessageClass(method.output_type).FromString)
    if method.client_streaming and method.server_streaming:
        return [response async for response in channel.stream_stream(path, *codec)(iter(requests))]
    if method.client_streaming:
        return [await channel.stream_unary(path, *codec)(iter(requests))]
    return [await channel.unary_unary(path, *codec)(requests[0])]
