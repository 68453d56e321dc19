"""Asks a service whether it is ready. `supervisor` repeats the question while services start."""

import asyncio
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from heddle.rpc.channels import open_channel

PROBE_S_MAX = 1.0


async def grpc_ready(address: str, service: str) -> bool:
    """Whether grpc.health.v1 reports the service as SERVING. Each call opens a new channel, because an idle channel
    waits longer and longer before it connects again."""
    if address.startswith("unix:") and not exists(address):
        return False
    async with open_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=PROBE_S_MAX)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def exists(address: str) -> bool:
    return Path(address.removeprefix("unix:")).exists()


async def http_ready(address: str) -> bool:
    """Whether GET /ready returns 200. The address is host:port or unix:/path, without TLS."""
    try:
        async with asyncio.timeout(PROBE_S_MAX):
            reader, writer = await connect(address)
            try:
                writer.write(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                status_line = await reader.readline()
            finally:
                writer.close()
    except OSError:  # TimeoutError is an OSError
        return False
    return status_line.split()[1:2] == [b"200"]


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port))
