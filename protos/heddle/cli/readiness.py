"""Checks whether a service is ready. `supervisor` polls this while services start.

gRPC is imported at the first check of a service that has a socket, so that services start sooner.
"""

import asyncio

from heddle.rpc.listening import socket_exists

PROBE_S_MAX = 1.0


async def grpc_ready(address: str, service: str, *, patience_s: float = 0.0) -> bool:
    """Returns whether grpc.health.v1 reports SERVING, now or within `patience_s`. Each call opens a new channel,
    because an unconnected channel waits longer and longer before it reconnects."""
    if address.startswith("unix:") and not socket_exists(address):
        return False
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from heddle.rpc.channels import open_channel
    from heddle.rpc.health import wait_until_serving

    async with open_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=PROBE_S_MAX)
        except grpc.aio.AioRpcError:
            return False
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return True
        return patience_s > 0 and await wait_until_serving(channel, service, patience_s)


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
