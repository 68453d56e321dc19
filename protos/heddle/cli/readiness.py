"""Whether a service answers yet. Asked again and again by `supervisor` while services start."""

import asyncio
import ssl
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from heddle.rpc.channels import open_channel

PROBE_S_MAX = 1.0
# What a server's refusal of a client without a certificate is to OpenSSL, by TLS 1.3 and 1.2.
CERTIFICATE_REQUIRED = ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE")


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


async def http_ready(host: str, port: int, *, tls: bool = False) -> bool:
    """Whether GET /ready answers 200. With TLS a server that asks for a certificate counts as ready: none is there to
    show."""
    try:
        async with asyncio.timeout(PROBE_S_MAX):
            reader, writer = await asyncio.open_connection(host, port, ssl=unverified() if tls else None)
            try:
                writer.write(f"GET /ready HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                status_line = await reader.readline()
            finally:
                writer.close()
    except ssl.SSLError as error:
        return error.reason in CERTIFICATE_REQUIRED
    except OSError:  # TimeoutError is one
        return False
    return status_line.split()[1:2] == [b"200"]


def unverified() -> ssl.SSLContext:
    """This machine's own server is asked, under an address that its certificate need not be for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
