"""One trace per request, across the tiers, at a real OTLP/gRPC collector."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from heddle.client import CallOptions, Client
from heddle.oip.v2 import open_inference_grpc_pb2 as oip
from heddle.oip.v2.open_inference_grpc_pb2_grpc import GRPCInferenceServiceStub
from heddle.tei.v1 import tei_pb2
from heddle.tei.v1.tei_pb2_grpc import EmbedStub
from heddle.v1 import inference_pb2 as pb
from heddle.v1.inference_pb2_grpc import InferenceServiceStub
from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.collector import Collector, Span, running_collector
from tests.slow_backend import SlowBackend
from tests.system.served import served
from tests.tokenizer_svc.oip.calls import texts

SECRET = "a text that nobody else may read"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
RECORDED = f"00-{TRACE}-{CALLER}-01"
UNRECORDED = f"00-{TRACE}-{CALLER}-00"
METADATA = (("traceparent", RECORDED), ("tracestate", "v=7"))
CALLS = ("InferenceService/Infer", "EngineService/Infer")
TIERS = ("POST", CALLS[0], "embeddings", "tokenize", CALLS[1], "infer", "queue", "compute")
TOKENIZER_ON = TIERS[2:]


@dataclass(frozen=True)
class Traced:
    collector: Collector
    http: httpx.AsyncClient  # of a gateway that records only what callers say
    eager: httpx.AsyncClient  # of one that records everything, whatever callers say
    tokenizer: str


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK otherwise sends spans every 5 s."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


@pytest_asyncio.fixture
async def traced(tmp_path: Path) -> AsyncIterator[Traced]:
    async with AsyncExitStack() as stack:
        collector = stack.enter_context(running_collector())
        send: dict[str, Any] = {"trace_collector": collector.url, "trace_ratio": 0.0}
        engine = await stack.enter_async_context(engine_pod(tmp_path, **send))
        tokenizer = await stack.enter_async_context(tokenizer_pod(tmp_path, engine, **send))
        urls = [
            await stack.enter_async_context(gateway(tokenizer, **settings))
            for settings in (send, {**send, "trace_ratio": 1.0, "trust_traceparent": False})
        ]
        http, eager = [await stack.enter_async_context(httpx.AsyncClient(base_url=url)) for url in urls]
        yield Traced(collector, http, eager, tokenizer)


async def embed(http: httpx.AsyncClient, traceparent: str = "", **headers: str) -> httpx.Response:
    stated = {"traceparent": traceparent} if traceparent else {}
    return await http.post("/v1/embeddings", json={"input": [SECRET, "b"], "model": "m"}, headers={**stated, **headers})


async def test_a_request_is_one_trace_from_http_to_compute(traced: Traced) -> None:
    assert (await embed(traced.eager)).status_code == 200
    spans = await traced.collector.trace(*TIERS)
    root, tokenizer, engine = spans["POST"], spans["embeddings"], spans["infer"]
    assert [span.service for span in (root, tokenizer, engine)] == [
        "heddle-gateway",
        "heddle-tokenizer",
        "heddle-engine",
    ]
    chain = ("POST", CALLS[0], "embeddings", CALLS[1], "infer", "compute")
    assert [spans[name].parent_id for name in chain] == ["", *(spans[name].span_id for name in chain[:-1])]
    assert (spans["tokenize"].parent_id, spans["queue"].parent_id) == (tokenizer.span_id, engine.span_id)
    assert spans["queue"].began_ns <= spans["queue"].ended_ns <= spans["compute"].began_ns
    assert root.began_ns <= spans["queue"].began_ns
    assert spans["compute"].ended_ns <= root.ended_ns
    assert [spans[name].kind for name in (*CALLS, "infer", "queue")] == ["client", "client", "server", "internal"]
    assert spans[CALLS[0]].attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "heddle.v1.InferenceService/Infer",
        "server.address": traced.tokenizer,
    }


async def test_spans_follow_the_conventions(traced: Traced) -> None:
    await embed(traced.eager, **{"x-request-id": "request-7"})
    spans = await traced.collector.trace(*TIERS)
    http, model = spans["POST"].attributes, "sentence-transformers/all-MiniLM-L6-v2"
    assert spans["POST"].name == "POST /v1/embeddings"
    assert (http["http.request.method"], http["http.route"], http["url.scheme"]) == ("POST", "/v1/embeddings", "http")
    assert (http["http.response.status_code"], http["heddle.request.id"]) == (200, "request-7")
    assert spans["embeddings"].name == f"embeddings {model}"
    assert spans["embeddings"].attributes == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "heddle",
        "gen_ai.request.model": model,
        "gen_ai.request.encoding_formats": ["float"],
        "gen_ai.embeddings.dimension.count": 384,
        "gen_ai.usage.input_tokens": 12,
        "heddle.request.id": "request-7",
        "heddle.request.kind": "embed",
        "heddle.request.inputs": 2,
        "heddle.truncated_inputs": 0,
    }
    resource = traced.collector.resources["heddle-engine"]
    assert resource["service.instance.id"]
    assert resource["service.version"]


async def test_texts_are_never_recorded(traced: Traced) -> None:
    await embed(traced.eager)
    await traced.eager.post("/v1/embeddings", json={"input": [SECRET, 3]})
    await traced.collector.trace(*TIERS)
    assert not any(SECRET.encode() in message for message in traced.collector.raw)


async def test_batch_and_submissions_are_linked_both_ways(traced: Traced) -> None:
    await asyncio.gather(*(embed(traced.eager) for _ in range(8)))
    computed: list[Span] = []
    while len(computed) < 8:
        await asyncio.sleep(0.01)
        computed = [span for span in traced.collector.spans if span.name == "compute"]
    batches = {span.ids: span for span in traced.collector.spans if span.word == "batch"}
    linked = sorted(link for batch in batches.values() for link in batch.links)
    assert linked == sorted((span.trace_id, span.parent_id) for span in computed)
    for span in computed:
        (link,) = span.links
        batch = batches[link]
        assert batch.trace_id != span.trace_id
        assert batch.attributes["heddle.batch.sequences"] == 2 * len(batch.links)
        assert batch.attributes["heddle.batch.tokens"] == 12 * len(batch.links)
        assert 0 < batch.attributes["heddle.batch.fill"] <= 1


async def test_the_trace_of_a_caller_continues_and_does_not_leave_by_the_answer(traced: Traced) -> None:
    response = await embed(traced.http, RECORDED, tracestate="vendor=7")
    spans = await traced.collector.trace(*TIERS, trace_id=TRACE)
    assert spans["POST"].parent_id == CALLER
    assert {spans[name].state for name in ("POST", CALLS[0], "embeddings", "infer")} == {"vendor=7"}
    assert not [name for name in response.headers if "trace" in name]
    assert TRACE not in str(response.headers) + response.text


async def test_a_caller_that_is_not_trusted_continues_its_trace_without_deciding(traced: Traced) -> None:
    await embed(traced.eager, UNRECORDED)
    spans = await traced.collector.trace(*TIERS, trace_id=TRACE)
    assert spans["POST"].parent_id == CALLER


async def test_nothing_is_sent_of_a_request_that_is_not_recorded(traced: Traced) -> None:
    for traceparent in ("", UNRECORDED, "nonsense", "00-" + "0" * 32 + "-" + CALLER + "-01"):
        assert (await embed(traced.http, traceparent)).status_code == 200
    await embed(traced.http, f"00-{'ab' * 16}-{CALLER}-01")
    await traced.collector.trace(*TIERS, trace_id="ab" * 16)
    assert {span.trace_id for span in traced.collector.spans if span.word != "batch"} == {"ab" * 16}
    await traced.http.get("/health")
    assert "GET" not in {span.word for span in traced.collector.spans}


async def unary_call(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        request = pb.EmbedRequest(inputs=[pb.Input(text=SECRET)])
        await InferenceServiceStub(channel).Embed(request, metadata=METADATA)


async def call_of_tei(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        await EmbedStub(channel).Embed(tei_pb2.EmbedRequest(inputs=SECRET), metadata=METADATA)


async def call_of_the_open_inference_protocol(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        request = oip.ModelInferRequest(inputs=[texts("text", SECRET)])
        await GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=METADATA)


async def item_of_a_stream(address: str) -> None:
    async with Client(address) as client:
        await client.vectors([SECRET], CallOptions(traceparent=RECORDED, tracestate="v=7"))


@pytest.mark.parametrize("call", [unary_call, item_of_a_stream, call_of_tei, call_of_the_open_inference_protocol])
async def test_a_grpc_call_is_one_trace(traced: Traced, call: Callable[[str], asyncio.Future[None]]) -> None:
    await call(traced.tokenizer)
    spans = await traced.collector.trace(*TOKENIZER_ON, trace_id=TRACE)
    assert (spans["embeddings"].parent_id, spans["embeddings"].state) == (CALLER, "v=7")


async def test_unary_calls_of_an_engine_are_part_of_the_trace(traced: Traced, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with tokenizer_pod(
        tmp_path / "other",
        f"unix:{tmp_path}/engine",
        engine_transport="unary",
        trace_collector=traced.collector.url,
    ) as address:
        await unary_call(address)
        names = ("embeddings", "tokenize", "EngineService/Encode", "infer", "queue", "compute")
        spans = await traced.collector.trace(*names, trace_id=TRACE)
    chain = [spans[name] for name in ("embeddings", "EngineService/Encode", "infer", "compute")]
    assert [span.parent_id for span in chain] == [CALLER, *(span.span_id for span in chain[:-1])]
    assert {span.state for span in chain[:-1]} == {"v=7"}


async def test_a_grpc_call_without_a_context_may_begin_a_trace(traced: Traced, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    send: dict[str, Any] = {"trace_collector": traced.collector.url, "trace_ratio": 1.0}
    async with (
        tokenizer_pod(tmp_path / "other", f"unix:{tmp_path}/engine", **send) as address,
        Client(address) as client,
    ):
        await client.vectors([SECRET])
        spans = await traced.collector.trace(*TOKENIZER_ON)
    assert not spans["embeddings"].parent_id


async def test_an_error_of_the_caller_is_named_but_is_no_failure_of_a_server(traced: Traced) -> None:
    response = await traced.http.post(
        "/rerank", json={"query": SECRET, "texts": ["b"]}, headers={"traceparent": RECORDED}
    )
    spans = await traced.collector.trace("POST", "rerank", CALLS[0], trace_id=TRACE)
    assert spans["POST"].attributes["http.response.status_code"] == response.status_code == 424
    for name in ("POST", "rerank"):
        assert (spans[name].attributes["error.type"], spans[name].is_error) == ("wrong_task", False)
    assert (spans[CALLS[0]].is_error, spans[CALLS[0]].message) == (True, "WRONG_TASK")


async def test_a_late_answer_is_a_failure(tmp_path: Path) -> None:
    with running_collector() as collector:
        send: dict[str, Any] = {"trace_collector": collector.url, "trace_ratio": 1.0}
        backend = SlowBackend()
        async with (
            engine_pod(tmp_path, backend, **send) as engine,
            tokenizer_pod(tmp_path, engine, **send) as tokenizer,
            gateway(tokenizer, **send) as url,
            httpx.AsyncClient(base_url=url) as http,
        ):
            backend.is_warm = True
            late = await embed(http, **{"request-timeout-ms": "100"})
            assert late.status_code == 504
            spans = await collector.trace("POST", "embeddings", "tokenize")  # a failure has this one, too
    assert (spans["POST"].is_error, spans["POST"].message) == (True, "DEADLINE_EXCEEDED")
    assert spans["POST"].attributes["error.type"] == "deadline_exceeded"
    assert spans["embeddings"].attributes["error.type"] in ("deadline_exceeded", "cancelled")


async def test_requests_are_answered_while_the_collector_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, but never answers
        silent_url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        lost: dict[str, Any] = {"trace_collector": "http://127.0.0.1:1", "trace_ratio": 1.0}
        async with (
            engine_pod(tmp_path, **lost) as engine,
            tokenizer_pod(tmp_path, engine, trace_collector=silent_url, trace_ratio=1.0) as tokenizer,
            gateway(tokenizer, **lost) as url,
            httpx.AsyncClient(base_url=url) as http,
        ):
            for _ in range(10):
                assert (await embed(http)).status_code == 200
                await asyncio.sleep(0.05)  # several exports
    complaints = [record for record in caplog.records if "trace" in record.getMessage() and record.levelname != "INFO"]
    assert 0 < len(complaints) <= 3  # one for each service


@pytest.mark.slow
async def test_processes_send_their_last_spans_when_they_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_BSP_SCHEDULE_DELAY")
    with running_collector() as collector:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_RESOURCE_ATTRIBUTES": "team=search"}
        async with (
            served("--engine", "simulated", "--trace-ratio", "1", **variables) as running,
            httpx.AsyncClient(base_url=running.url) as http,
        ):
            assert (await embed(http)).status_code == 200
        spans = await collector.trace(*TIERS)
    assert {span.service for span in spans.values()} == {"heddle-gateway", "heddle-tokenizer", "heddle-engine"}
    assert {resource["team"] for resource in collector.resources.values()} == {"search"}
    assert len({resource["service.instance.id"] for resource in collector.resources.values()}) == 3
