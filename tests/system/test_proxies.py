"""Real proxies in front of every tier, with the configurations of deploy/proxies: HTTP/2 end to end, balancing, pods
that are killed or drained under load, long-lived streams, large messages, and mutual TLS."""

import asyncio
import shutil
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from heddle import tensors
from heddle.client import Client, UnaryClient
from heddle.rpc.channels import open_channel
from heddle.rpc.credentials import Access
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2 as pb
from heddle.v1.inference_pb2_grpc import InferenceServiceStub
from tests.system.callers import BODY, callers, load
from tests.system.proxied import RUN, Cluster, clusters, with_tls

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.asyncio(loop_scope="module")]

INSTALLED = [name for name in RUN if shutil.which(name)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def all_proxied(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, "Proxied"]]:
    if not INSTALLED:
        pytest.skip("needs HAProxy or nginx")
    folder = tmp_path_factory.mktemp("proxies")
    async with clusters(folder, INSTALLED) as behind, AsyncExitStack() as running:
        for name, pods in behind.items():
            await running.enter_async_context(RUN[name](pods))
        for pod in pods.pods.values():
            await pod.wait_ready()
        found = {name: Proxied(name, pods) for name, pods in behind.items()}
        await settle(found)
        yield found


@pytest.fixture(params=RUN)
def proxied(request: pytest.FixtureRequest, all_proxied: dict[str, "Proxied"]) -> "Proxied":
    if request.param not in all_proxied:
        pytest.skip(f"needs {request.param}")
    return all_proxied[request.param]


class Proxied:
    def __init__(self, proxy: str, pods: Cluster) -> None:
        self.proxy = proxy
        self.pods = pods
        self.url = f"http://{pods.at('8080')}"
        self.tokenizer = pods.at("50051")

    async def settle(self) -> None:
        """Waits until the proxy knows that every pod is ready. nginx finds out by itself within a second."""
        if self.proxy == "nginx":
            await asyncio.sleep(1)
            return
        async with httpx.AsyncClient() as http, asyncio.timeout(20):
            while True:
                lines = (await http.get(f"http://{self.pods.at('8404')}/metrics")).text.splitlines()
                states = [line for line in lines if line.startswith("haproxy_server_status{") and 'state="UP"' in line]
                plain = [line for line in states if "_tls" not in line and "passthrough" not in line]
                assert len(plain) == 6
                if all(line.endswith(" 1") for line in plain):
                    return
                await asyncio.sleep(0.1)


async def settle(all_proxied: dict[str, Proxied]) -> None:
    await asyncio.gather(*(one.settle() for one in all_proxied.values()))


async def requests_of(pods: Cluster) -> list[float]:
    """The number of embeddings that each gateway has answered."""
    totals = []
    async with httpx.AsyncClient() as http:
        for number in (1, 2):
            text = (await http.get(f"http://{pods.at(f'gateway-{number}:8080')}/metrics")).text
            lines = [line for line in text.splitlines() if line.startswith("heddle_gateway_request_seconds_count{")]
            totals.append(sum(float(line.split()[-1]) for line in lines if '"/v1/embeddings"' in line))
    return totals


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
async def test_requests_go_to_both_gateways(proxied: Proxied, protocol: str) -> None:
    if proxied.proxy == "nginx" and protocol == "HTTP/2":
        pytest.skip("nginx takes HTTP/2 with TLS")
    before = await requests_of(proxied.pods)
    async with httpx.AsyncClient(
        base_url=proxied.url, http1=protocol == "HTTP/1.1", http2=protocol == "HTTP/2"
    ) as http:
        answers = await asyncio.gather(*(http.post("/v1/embeddings", json=BODY) for _ in range(20)))
    assert {(answer.status_code, answer.http_version) for answer in answers} == {(200, protocol)}
    assert all(after > earlier for after, earlier in zip(await requests_of(proxied.pods), before, strict=True))


async def test_a_stream_survives_when_nobody_calls_for_longer_than_the_proxy_waits(
    all_proxied: dict[str, Proxied], tmp_path: Path
) -> None:
    """The files allow 75 s of silence; here it is 3 s. Heartbeats of the pods keep the stream."""
    for name in all_proxied:
        (tmp_path / name).mkdir()
    await asyncio.gather(*(keep_stream(one, tmp_path / name) for name, one in all_proxied.items()))


async def keep_stream(proxied: Proxied, folder: Path) -> None:
    changes = {
        "haproxy": [("timeout client 75s", "timeout client 3s"), ("timeout server 75s", "timeout server 3s")],
        "nginx": [("grpc_read_timeout 75s", "grpc_read_timeout 3s"), ("grpc_send_timeout 75s", "grpc_send_timeout 3s")],
    }
    own = proxied.pods.beside(folder)
    async with RUN[proxied.proxy](own, *changes[proxied.proxy]), open_channel(own.at("50051")) as channel:
        stub: Any = InferenceServiceStub(channel)
        stream = stub.Infer()
        for number in (1, 2):
            item = pb.InferenceItem(id=number, embed=pb.EmbedRequest(inputs=[pb.Input(text="warp")]))
            await stream.write(pb.InferenceServiceInferRequest(items=[item]))
            await read_outcome(stream, number)
            if number == 1:
                quiet_until = time.monotonic() + 4
                while time.monotonic() < quiet_until:
                    assert await stream.read() is not grpc.aio.EOF


async def read_outcome(stream: Any, number: int) -> None:
    async with asyncio.timeout(10):
        while True:
            for outcome in (await stream.read()).outcomes:
                assert (outcome.id, outcome.WhichOneof("result")) == (number, "embed")
                return


TIERS = ("gateway-1:8080", "tokenizer-1:50051", "engine-1:50052")


async def end_each(
    all_proxied: dict[str, Proxied], how: signal.Signals, progress: Callable[[], Awaitable[None]]
) -> None:
    """Ends one pod of every tier at the same time, and starts them again."""
    processes = next(iter(all_proxied.values())).pods.pods
    pods = [processes[name] for name in TIERS]
    try:
        await asyncio.gather(*(pod.end(how) for pod in pods))
        await progress()
    finally:
        await asyncio.gather(*(pod.restart() for pod in pods))
        await settle(all_proxied)
    await progress()


async def test_no_caller_sees_that_pods_are_drained(all_proxied: dict[str, Proxied]) -> None:
    """Except plain gRPC calls behind nginx, which has no health checks."""
    async with AsyncExitStack() as stack:
        calls = []
        for name, one in all_proxied.items():
            calls += await stack.enter_async_context(callers(one.url, one.tokenizer, calls_may_fail=name == "nginx"))
        async with load(*calls) as progress:
            await end_each(all_proxied, signal.SIGTERM, progress)


async def test_no_caller_sees_that_pods_were_killed(all_proxied: dict[str, Proxied]) -> None:
    """Except those whose request was at the pod, where the proxy cannot repeat it: HAProxy 2.6 no request at all, nginx
    no gRPC."""
    async with AsyncExitStack() as stack:
        calls = []
        for name, one in all_proxied.items():
            allowed = callers(one.url, one.tokenizer, calls_may_fail=True, posts_may_fail=name == "haproxy")
            calls += await stack.enter_async_context(allowed)
        async with load(*calls) as progress:
            await end_each(all_proxied, signal.SIGKILL, progress)


async def test_large_bodies_and_answers_pass(proxied: Proxied) -> None:
    async with httpx.AsyncClient(base_url=proxied.url, timeout=60) as http:
        body = {**BODY, "user": "x" * 7_000_000}
        assert (await http.post("/v1/embeddings", json=body)).status_code == 200
        texts = ["warp and weft " * 80] * 2
        rows = (await http.post("/embed_all", json={"inputs": texts})).json()
        assert [len(row) for row in rows] == [256] * 2
    async with Client(proxied.tokenizer) as client, UnaryClient(proxied.tokenizer) as unary:
        request = pb.EmbedTokensRequest(inputs=[pb.Input(text=text) for text in texts * 15])
        for answer in (await client.embed_tokens(request), await unary.embed_tokens(request)):
            assert [tensors.from_proto(one).shape for one in answer.embeddings] == [(256, 384)] * 30


async def test_the_advice_to_try_again_later_passes(proxied: Proxied) -> None:
    limits = httpx.Limits(max_connections=60)
    async with httpx.AsyncClient(base_url=proxied.url, timeout=60, limits=limits) as http:
        body = {"model": "any", "input": ["warp and weft " * 80] * 32}
        answers = await asyncio.gather(*(http.post("/v1/embeddings", json=body) for _ in range(60)))
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)


async def test_the_gateway_learns_the_address_of_the_client(proxied: Proxied, tmp_path: Path) -> None:
    """A stand-in for the gateway shows its headers. What the client claims comes before what the proxy saw."""
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        own = proxied.pods.beside(tmp_path, {"gateway-1:8080": port, "gateway-2:8080": port})
        changes = [(f":{port} proto h2", f":{port}")] if proxied.proxy == "haproxy" else []
        async with RUN[proxied.proxy](own, *changes), httpx.AsyncClient() as http:
            claim = {"x-forwarded-for": "203.0.113.9"}
            assert (await http.get(f"http://{own.at('8080')}/info", headers=claim)).status_code == 200
    head = next(head for head in heads if b"/info" in head)  # the others are the proxy's checks
    lines = head.decode().lower().split("\r\n")
    values = [line.partition(": ")[2] for line in lines if line.startswith("x-forwarded-for")]
    assert ", ".join(values) == "203.0.113.9, 127.0.0.1"


async def test_every_hop_has_mutual_tls(proxied: Proxied) -> None:
    pods = proxied.pods
    tls = pods.client_tls("caller")
    stranger = ssl.create_default_context(cafile=str(tls.ca))
    context = ssl.create_default_context(cafile=str(tls.ca))
    context.load_cert_chain(str(tls.cert), str(tls.key))
    async with with_tls(pods), asyncio.timeout(30):
        url = f"https://{pods.at('8443')}/v1/embeddings"
        async with httpx.AsyncClient(verify=context, http2=True) as http:
            while (answer := await http.post(url, json=BODY)).status_code in (502, 503):  # not checked yet
                await asyncio.sleep(0.2)
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        async with httpx.AsyncClient(verify=stranger, http2=True) as http:
            assert await is_refused(http, url)
        doors = ["50061", "50071"] if proxied.proxy == "haproxy" else ["50061"]
        for door in doors:
            async with Client(pods.at(door), access=Access(tls)) as client:
                assert (await client.vectors(["warp"])).shape == (1, 384)
            async with UnaryClient(pods.at(door), access=Access(tls)) as client:
                assert (await client.vectors(["warp"])).shape == (1, 384)
            async with UnaryClient(pods.at(door), access=Access(type(tls)(tls.ca))) as client:
                with pytest.raises(HeddleError) as refused:
                    await client.vectors(["warp"])
                assert refused.value.kind in (ErrorKind.UNAUTHENTICATED, ErrorKind.UNAVAILABLE, ErrorKind.INTERNAL)


async def is_refused(http: httpx.AsyncClient, url: str) -> bool:
    """HAProxy ends the handshake, nginx answers 400."""
    try:
        return (await http.post(url, json=BODY)).status_code == 400
    except (httpx.TransportError, ssl.SSLError):  # depending on whether the request was sent before the alert came
        return True
