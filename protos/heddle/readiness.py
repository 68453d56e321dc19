"""Whether a service answers yet. Asked again and again by heddle.supervisor while services start."""

import asyncio
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from heddle.rpc.channels import open_channel

PROBE_S_MAX = 1.0


async def grpc_ready(address: str, service: str) -> bool:
    """By grpc.health.v1. Each probe is a connection of its own: an idle channel would wait longer and longer."""
    if address.startswith("unix:") and not is_there(Path(address.removeprefix("unix:"))):
        return False
    async with open_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=PROBE_S_MAX)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def is_there(path: Path) -> bool:
    return path.exists()


async def http_ready(host: str, port: int) -> bool:
    """Whether GET /ready answers 200."""
    try:
        async with asyncio.timeout(PROBE_S_MAX):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET /ready HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                status_line = await reader.readline()
            finally:
                writer.close()
    except OSError:  # TimeoutError is one
        return False
    return status_line.split()[1:2] == [b"200"]
