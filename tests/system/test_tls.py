"""Mutual TLS between all tiers, each in a process of its own, and the errors of callers without a valid certificate."""

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from heddle.cli.readiness import grpc_ready
from heddle.client import Client, UnaryClient
from heddle.rpc.credentials import Access, ClientTls
from heddle.rpc.errors import HeddleError
from heddle.rpc.listening import usable_port
from heddle.v1 import inference_pb2 as pb
from tests.certificates import Certificate, make_authority, sign
from tests.system.served import served

pytestmark = pytest.mark.slow

START_S_MAX = 60


@dataclass(frozen=True)
class Cluster:
    ca: Certificate
    caller: Certificate
    engine: str
    tokenizer: str
    port: int  # of the gateway
    logs: dict[str, Path]

    def context(self, certificate: Certificate | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca.cert)
        if certificate:
            context.load_cert_chain(certificate.cert, certificate.key)
        return context

    async def log_line(self, service: str, words: str) -> str:
        async with asyncio.timeout(20):
            while True:
                for line in self.logs[service].read_text().splitlines():
                    if words in line:
                        return line
                await asyncio.sleep(0.05)


@asynccontextmanager
async def process(log: Path, *words: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("ab") as output:
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *words),
            stdout=output,
            stderr=output,
            # At this level, gRPC's core says why a handshake failed.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GRPC_VERBOSITY": "INFO"},
        )
        try:
            yield started
            started.terminate()
            assert await asyncio.wait_for(started.wait(), 30) == 0
        finally:
            if started.returncode is None:
                started.kill()
                await started.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    folder = tmp_path_factory.mktemp("tls")
    ca = make_authority(folder)
    engine, tokenizer, gateway = (sign(ca, name) for name in ("engine", "tokenizer", "gateway"))
    ports = [usable_port("127.0.0.1", 0) for _ in range(3)]
    running = Cluster(
        *(ca, sign(ca, "caller"), f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", ports[2]),
        {name: folder / f"{name}.log" for name in ("engine", "tokenizer", "gateway")},
    )

    def shown(certificate: Certificate, prefix: str = "") -> tuple[str, ...]:
        files = (("cert", certificate.cert), ("key", certificate.key), ("ca", ca.cert))
        return tuple(word for name, file in files for word in (f"--{prefix}tls-{name}", str(file)))

    async with (
        process(
            running.logs["engine"],
            *("engine_svc", "--backend", "simulated", *shown(engine)),
            *("--listen", f"{running.engine},unix:{folder}/engine"),
        ),
        process(
            running.logs["tokenizer"],
            *("tokenizer_svc", *shown(tokenizer), *shown(tokenizer, "engines-")),
            *("--listen", f"{running.tokenizer},unix:{folder}/tokenizer", "--engines", running.engine),
        ),
        process(
            running.logs["gateway"],
            *("http_gateway", *shown(gateway), *shown(gateway, "tokenizers-")),
            *("--port", str(running.port), "--tokenizers", running.tokenizer),
        ),
    ):
        async with asyncio.timeout(START_S_MAX):
            while not await grpc_ready(f"unix:{folder}/tokenizer", "heddle.v1.InferenceService"):
                await asyncio.sleep(0.1)
            async with httpx.AsyncClient(verify=running.context(running.caller)) as http:
                while not await is_ready(http, running.port):
                    await asyncio.sleep(0.1)
        yield running


async def is_ready(http: httpx.AsyncClient, port: int) -> bool:
    try:
        return (await http.get(f"https://localhost:{port}/ready")).status_code == 200
    except httpx.TransportError:
        return False


async def run_s_client(address: str, *flags: str | Path) -> int | None:
    """Returns the exit code of openssl's client, or None if it is still connected after three seconds."""
    client = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", address, "-alpn", "h2", "-verify_return_error", *map(str, flags)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert client.stdin
    client.stdin.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    try:
        return await asyncio.wait_for(client.wait(), 3)
    except TimeoutError:
        client.kill()
        await client.wait()
        return None


@pytest.mark.asyncio(loop_scope="module")
async def test_a_request_passes_all_tiers(cluster: Cluster) -> None:
    async with httpx.AsyncClient(verify=cluster.context(cluster.caller), http2=True) as http:
        response = await http.post(f"https://localhost:{cluster.port}/v1/embeddings", json={"input": "warp"})
    assert (response.status_code, response.http_version) == (200, "HTTP/2")
    assert len(response.json()["data"][0]["embedding"]) == 384


@pytest.mark.asyncio(loop_scope="module")
async def test_clients_of_grpc_show_their_certificate(cluster: Cluster) -> None:
    access = Access(ClientTls(cluster.ca.cert, cluster.caller.cert, cluster.caller.key))
    async with Client(cluster.tokenizer, access=access) as client, UnaryClient(cluster.tokenizer, access=access) as one:
        assert (await client.vectors(["warp"])).shape == (1, 384)
        assert (await one.embed(pb.EmbedRequest(inputs=[pb.Input(text="weft")]))).embeddings.data


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("tier", ["engine", "tokenizer", "gateway"])
async def test_openssl_connects_only_with_a_certificate(cluster: Cluster, tier: str) -> None:
    address = {"engine": cluster.engine, "tokenizer": cluster.tokenizer}.get(tier, f"127.0.0.1:{cluster.port}")
    trust = ("-CAfile", cluster.ca.cert)
    assert await run_s_client(address, *trust) not in (0, None)
    assert await run_s_client(address, *trust, "-cert", cluster.caller.cert, "-key", cluster.caller.key) in (0, None)
    if tier != "gateway":
        line = await cluster.log_line(tier, "PEER_DID_NOT_RETURN_A_CERTIFICATE")
        assert "Handshake failed" in line


@pytest.mark.asyncio(loop_scope="module")
async def test_a_tokenizer_with_a_wrong_certificate_says_which_and_why(cluster: Cluster, tmp_path: Path) -> None:
    """Both ends log it in one line."""
    wrong = sign(make_authority(tmp_path, "strangers"), "stranger")
    log = tmp_path / "log"
    log.touch()
    cluster.logs["stranger"] = log
    flags = ("--engines-tls-ca", cluster.ca.cert, "--engines-tls-cert", wrong.cert, "--engines-tls-key", wrong.key)
    async with process(log, "tokenizer_svc", "--listen", f"unix:{tmp_path}/s", "--engines", cluster.engine, *flags):
        line = await cluster.log_line("stranger", "no stream to")
        assert line.endswith(
            f"no stream to {cluster.engine}: {cluster.engine} closed the connection in the TLS handshake: "
            f"it may refuse the certificate {wrong.cert}"
        )
        assert "unable to get local issuer certificate" in await cluster.log_line("engine", "CERTIFICATE_VERIFY_FAILED")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_caller_without_a_certificate_is_refused_everywhere(cluster: Cluster) -> None:
    async with httpx.AsyncClient(verify=cluster.context(None)) as http:
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            await http.get(f"https://localhost:{cluster.port}/ready")
    async with UnaryClient(cluster.tokenizer, access=Access(ClientTls(cluster.ca.cert))) as client:
        with pytest.raises(HeddleError, match="it may ask for a client certificate"):
            await client.embed(pb.EmbedRequest(inputs=[pb.Input(text="weft")]))


async def test_heddle_serve_speaks_tls_on_both_of_its_ports(tmp_path: Path) -> None:
    ca = make_authority(tmp_path)
    own = sign(ca, "own")
    flags = ("--tls-cert", str(own.cert), "--tls-key", str(own.key), "--engine", "simulated")
    for more in ((), ("--tls-ca", str(ca.cert))):
        async with served(*flags, *more) as running:
            assert running.url.startswith("https://")
            context = ssl.create_default_context(cafile=ca.cert)
            context.load_cert_chain(own.cert, own.key)
            async with httpx.AsyncClient(verify=context, base_url=running.url) as http:
                response = await http.post("/v1/embeddings", json={"input": "warp"})
                assert response.status_code == 200
            async with Client(running.grpc, access=Access(ClientTls(ca.cert, own.cert, own.key))) as client:
                assert (await client.vectors(["warp"])).shape == (1, 384)


@pytest.mark.parametrize("module", ["engine_svc", "tokenizer_svc", "http_gateway"])
async def test_a_file_that_cannot_be_used_stops_a_service_with_one_line(module: str, tmp_path: Path) -> None:
    own = sign(make_authority(tmp_path), "own")
    other = sign(make_authority(tmp_path, "other"), "another")
    listen = ("--port", "0") if module == "http_gateway" else ("--listen", "127.0.0.1:0")
    simulated = ("--backend", "simulated") if module == "engine_svc" else ()
    failed = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *listen, *simulated, "--tls-cert", own.cert, "--tls-key", other.key),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    _, log = await asyncio.wait_for(failed.communicate(), START_S_MAX)
    assert failed.returncode == 2
    (line,) = [line for line in log.decode().splitlines() if "critical" in line]
    assert f"the certificate {own.cert} and the key {other.key} cannot be used: KEY_VALUES_MISMATCH" in line
