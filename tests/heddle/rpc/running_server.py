"""A server inside a test, on a free port. The test decides when it has warmed up and what it answers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from heddle.rpc.channels import open_channel
from heddle.rpc.lifecycle import Server
from heddle.v1 import engine_pb2, engine_pb2_grpc

NAME = "heddle.v1.EngineService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class LoomServicer(engine_pb2_grpc.EngineServiceServicer):
    """Encode runs the function of the test. Infer runs it after one frame. GetModel is not implemented."""

    def __init__(self, encode: Callable[[], Awaitable[None]]) -> None:
        self.encode = encode

    async def Encode(self, request: engine_pb2.EncodeRequest, context: Any) -> engine_pb2.EncodeResponse:
        await self.encode()
        return engine_pb2.EncodeResponse(outcome=engine_pb2.Outcome(id=len(request.sequences.lengths)))

    async def Infer(self, request_iterator: Any, context: Any) -> AsyncIterator[engine_pb2.EngineServiceInferResponse]:
        yield engine_pb2.EngineServiceInferResponse()
        await self.encode()


class RunningServer:
    """A server that runs in a task of the test, on a free port."""

    def __init__(self, encode: Callable[[], Awaitable[None]]) -> None:
        self.stop = asyncio.Event()
        self.warm = asyncio.Event()
        self.server = Server(["127.0.0.1:0"], drain_s_max=5, stop=self.stop)
        servicer = LoomServicer(encode)
        self.server.add(NAME, engine_pb2_grpc.add_EngineServiceServicer_to_server, servicer)

    async def open(self) -> None:
        self.task = asyncio.create_task(self.server.serve(warm_up=self._warm_up))
        while not self.server.addresses:
            await asyncio.sleep(0.001)
        self.channel = open_channel(self.server.addresses[0])
        self.stub: Any = engine_pb2_grpc.EngineServiceStub(self.channel)

    async def _warm_up(self) -> None:
        await self.warm.wait()

    async def health(self, service: str) -> int:
        return await health_of(self.channel, service)

    async def until_ready(self) -> None:
        self.warm.set()
        while await self.health(NAME) != SERVING:
            await asyncio.sleep(0.001)


async def health_of(channel: grpc.aio.Channel, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    answer = await health_pb2_grpc.HealthStub(channel).Check(request, wait_for_ready=True, timeout=20)
    return int(answer.status)


async def nothing() -> None:
    pass


@asynccontextmanager
async def running_server(
    encode: Callable[[], Awaitable[None]] = nothing, *, ready: bool = True
) -> AsyncIterator[RunningServer]:
    running = RunningServer(encode)
    await running.open()
    try:
        if ready:
            await running.until_ready()
        yield running
    finally:
        await running.channel.close()
        running.stop.set()
        await running.task


async def failure(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value
