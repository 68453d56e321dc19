"""The streams of tei.v1 over a real connection: what they answer, how they fail, and what a draining pod does."""

import asyncio
import time
from pathlib import Path

import grpc
import pytest
from prometheus_client import REGISTRY

from heddle.client import Client
from heddle.rpc.channels import open_channel
from heddle.tei.v1 import tei_pb2 as tei
from heddle.tei.v1 import tei_pb2_grpc
from tests.cluster import engine_pod, tokenizer_pod
from tests.slow_backend import SlowBackend
from tests.tokenizer_svc.tei.served_model import TOKENS_MAX, ServedModel, read_all, served, status_of

LONG = "loom " * TOKENS_MAX


async def test_a_stream_answers_in_order(embedder: ServedModel) -> None:
    wanted = [tei.EmbedRequest(inputs=f"thread {number} " * (1 + number % 7)) for number in range(100)]
    streamed = await read_all(embedder.embed.EmbedStream(iter(wanted)))
    alone = [await embedder.embed.Embed(request) for request in wanted]
    assert [response.embeddings for response in streamed] == [response.embeddings for response in alone]


async def test_vectors_of_all_tokens_stream_too(embedder: ServedModel) -> None:
    wanted = [tei.EmbedAllRequest(inputs=f"thread {number}") for number in range(200)]
    streamed = await read_all(embedder.embed.EmbedAllStream(iter(wanted)))
    alone = await embedder.embed.EmbedAll(wanted[150])
    assert streamed[150].token_embeddings == alone.token_embeddings


async def test_sparse_vectors_stream_too(sparse_embedder: ServedModel) -> None:
    wanted = [tei.EmbedSparseRequest(inputs=f"thread {number}") for number in range(200)]
    streamed = await read_all(sparse_embedder.embed.EmbedSparseStream(iter(wanted)))
    alone = await sparse_embedder.embed.EmbedSparse(wanted[150])
    assert streamed[150].sparse_embeddings == alone.sparse_embeddings


async def test_an_error_ends_the_stream_after_the_answers_before_it(embedder: ServedModel) -> None:
    call = embedder.embed.EmbedStream()
    for text in ("warp", "weft", LONG):
        await call.write(tei.EmbedRequest(inputs=text))
    assert (await call.read()).metadata.compute_chars == 4
    assert (await call.read()).metadata.compute_chars == 4
    status, message = await status_of(call.read())
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert f"the limit is {TOKENS_MAX} tokens" in message


def calls_measured(method: str) -> float:
    samples = (sample for metric in REGISTRY.collect() for sample in metric.samples)
    return sum(
        sample.value
        for sample in samples
        if sample.name == "heddle_rpc_call_seconds_count" and sample.labels["method"] == method
    )


async def test_streams_of_tei_are_measured_as_calls_and_the_coalescing_stream_is_not(tmp_path: Path) -> None:
    before = calls_measured("/tei.v1.Embed/EmbedStream")
    async with (
        engine_pod(tmp_path) as engine,
        tokenizer_pod(tmp_path, engine) as address,
        Client(address) as client,
        open_channel(address) as channel,
    ):
        await client.vectors(["warp"])
        await read_all(tei_pb2_grpc.EmbedStub(channel).EmbedStream(iter([tei.EmbedRequest(inputs="warp")])))
    assert calls_measured("/tei.v1.Embed/EmbedStream") == before + 1
    assert calls_measured("/heddle.v1.InferenceService/Infer") == 0


async def test_a_deadline_ends_a_stream(tmp_path: Path) -> None:
    backend = SlowBackend()
    async with served(tmp_path, backend=backend) as model:
        backend.is_warm = True
        call = model.embed.EmbedStream(timeout=0.2)
        await call.write(tei.EmbedRequest(inputs="warp"))
        assert (await status_of(call.read()))[0] is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_draining_pod_answers_what_it_read_and_ends_the_stream(tmp_path: Path) -> None:
    async with engine_pod(tmp_path) as engine:
        pod = tokenizer_pod(tmp_path, engine)
        address = await pod.__aenter__()
        async with open_channel(address) as channel:
            call = ServedModel(address, channel).embed.EmbedStream()
            await call.write(tei.EmbedRequest(inputs="warp"))
            assert (await call.read()).embeddings
            started = time.monotonic()
            leaving = asyncio.create_task(pod.__aexit__(None, None, None))
            status = await status_of(call.read())
            await leaving
    assert status == (grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("priority", ["urgent", "-1", "4294967296", "1" * 5000])
async def test_malformed_metadata_are_an_invalid_argument(embedder: ServedModel, priority: str) -> None:
    call = embedder.embed.EmbedStream(metadata=(("heddle-priority", priority),))
    assert (await status_of(call.read()))[0] is grpc.StatusCode.INVALID_ARGUMENT
