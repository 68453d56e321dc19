"""A service is ready when its own health check says so, whatever its ports require of callers."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

import http_gateway.__main__ as http_gateway
from heddle.cli.readiness import http_ready
from heddle.rpc.listening import usable_port
from http_gateway.settings import GatewaySettings
from tests.certificates import make_authority, sign
from tests.cluster import READY_S_MAX, engine_pod, tokenizer_pod


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    """The settings of a gateway that requires client certificates. Its tokenizer is not running yet."""
    ca = make_authority(tmp_path)
    own = sign(ca, "gateway")
    return GatewaySettings(
        port=usable_port("127.0.0.1", 0),
        unix_socket=tmp_path / "gateway",
        tokenizers=(f"unix:{tmp_path}/tokenizer",),
        tls_cert=own.cert,
        tls_key=own.key,
        tls_ca=ca.cert,
    )


@pytest_asyncio.fixture
async def gateway(settings: GatewaySettings) -> AsyncIterator[str]:
    """Yields its unix socket, where a killed gateway has left a file."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(settings.unix_socket))
    stop = asyncio.Event()
    serving = asyncio.create_task(http_gateway.serve(settings, stop))
    yield f"unix:{settings.unix_socket}"
    stop.set()
    await serving


async def test_a_gateway_that_requires_certificates_is_ready_when_it_can_answer(
    gateway: str, settings: GatewaySettings, tmp_path: Path
) -> None:
    assert not await http_ready(gateway)  # it does not listen yet
    async with asyncio.timeout(READY_S_MAX), httpx.AsyncClient(transport=over(gateway)) as local:
        while not await is_alive(local):
            await asyncio.sleep(0.01)
        assert not await http_ready(gateway)  # the tokenizer is missing
        async with engine_pod(tmp_path) as engine, tokenizer_pod(tmp_path, engine):
            while not await http_ready(gateway):
                await asyncio.sleep(0.01)
            response = await local.post("http://localhost/v1/embeddings", json={"input": "warp"})
            assert response.status_code == 200
    async with httpx.AsyncClient(verify=False) as http:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, ssl.SSLError)):
            await http.get(f"https://127.0.0.1:{settings.port}/live")


def over(address: str) -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(uds=address.removeprefix("unix:"))


async def is_alive(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("http://localhost/live")).status_code == 200
    except httpx.ConnectError:
        return False
