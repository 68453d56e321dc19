"""A client learns at once that a starting pod is ready, and does not wait for any other pod."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from heddle.rpc.channels import open_channel
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.health import wait_until_serving, wait_while_starting
from tests.heddle.rpc.running_server import NAME, NOT_SERVING, SERVING, running_server

STARTING = HeddleError(ErrorKind.UNAVAILABLE, "the server is starting", retry_after_ms=1000)


class StartingServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # not typed
    """Reports that it is not ready until the test makes it ready."""

    def __init__(self) -> None:
        self.asked, self.warm = asyncio.Event(), asyncio.Event()

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        yield health_pb2.HealthCheckResponse(status=NOT_SERVING)
        self.asked.set()
        await self.warm.wait()
        yield health_pb2.HealthCheckResponse(status=SERVING)


async def test_waiting_ends_when_the_pod_becomes_ready(tmp_path: Path) -> None:
    servicer, server = StartingServicer(), grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{tmp_path}/pod")
    await server.start()
    waiting = asyncio.create_task(wait_while_starting(STARTING, lambda: open_channel(f"unix:{tmp_path}/pod"), NAME))
    await asyncio.wait_for(servicer.asked.wait(), 10)
    servicer.warm.set()
    assert await waiting
    await server.stop(None)


async def test_a_server_that_was_ready_before_has_not_become_ready() -> None:
    async with running_server() as running:
        assert not await wait_until_serving(running.channel, NAME, 20)


async def test_an_unknown_service_is_not_waited_for_longer_than_allowed() -> None:
    async with running_server() as running:
        assert not await wait_until_serving(running.channel, "heddle.v1.Unknown", 0.05)


async def test_a_server_that_cannot_tell_is_not_waited_for(tmp_path: Path) -> None:
    server = grpc.aio.server()
    server.add_insecure_port(f"unix:{tmp_path}/pod")
    await server.start()
    async with asyncio.timeout(10), open_channel(f"unix:{tmp_path}/pod") as channel:
        assert not await wait_until_serving(channel, NAME, 20)
    await server.stop(None)


async def test_other_refusals_are_not_waited_for() -> None:
    def refuse() -> None:
        raise AssertionError("opened a channel")

    for refusal in (None, HeddleError(ErrorKind.UNAVAILABLE, "gone"), HeddleError(ErrorKind.MISMATCH, "another model")):
        assert not await wait_while_starting(refusal, refuse, NAME)  # type: ignore[arg-type]


async def test_a_channel_that_cannot_be_opened_is_left_to_the_next_attempt() -> None:
    def fail() -> None:
        raise OSError("no more files")

    assert not await wait_while_starting(STARTING, fail, NAME)  # type: ignore[arg-type]
