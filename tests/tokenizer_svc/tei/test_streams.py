"""The streams of tei.v1 over a real connection: answers, errors, deadlines and draining."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from heddle.client import Client
from heddle.rpc.channels import open_channel
from heddle.tei.v1 import tei_pb2 as tei
from heddle.tei.v1 import tei_pb2_grpc
from tests import kinds
from tests.cluster import engine_pod, tokenizer_pod
from tests.metrics import free_port, scrape
from tests.slow_backend import SlowBackend
from tests.tokenizer_svc.tei.served_model import TOKENS_MAX, ServedModel, read_all, served, status_of, write_embedder

LONG = "loom " * TOKENS_MAX


@pytest.mark.parametrize(
    ("write", "service", "rpc", "request_of"),
    [
        (write_embedder, "embed", "Embed", lambda text: tei.EmbedRequest(inputs=text)),
        (write_embedder, "embed", "EmbedAll", lambda text: tei.EmbedAllRequest(inputs=text)),
        (kinds.write_sparse_embedder, "embed", "EmbedSparse", lambda text: tei.EmbedSparseRequest(inputs=text)),
        (kinds.write_classifier, "predict", "Predict", lambda text: tei.PredictRequest(inputs=text)),
        (kinds.write_classifier, "predict", "PredictPair", lambda text: tei.PredictPairRequest(inputs=[text, "loom"])),
        (write_embedder, "tokenize", "Tokenize", lambda text: tei.EncodeRequest(inputs=text)),
        (write_embedder, "tokenize", "Decode", lambda text: tei.DecodeRequest(ids=[2000 + len(text), 7592])),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_stream_has_the_answers_of_its_unary_calls_in_order(
    tmp_path: Path, write: Callable[[Path], Path], service: str, rpc: str, request_of: Callable[[str], Any]
) -> None:
    wanted = [request_of(f"thread {number} " * (1 + number % 7)) for number in range(100)]
    async with served(tmp_path, write) as model:
        stub = getattr(model, service)
        streamed = await read_all(getattr(stub, f"{rpc}Stream")(iter(wanted)))
        alone = [await getattr(stub, rpc)(request) for request in wanted]
    assert list(map(without_times, streamed)) == list(map(without_times, alone))


def without_times(response: Any) -> Any:
    if hasattr(response, "metadata"):
        counts = response.metadata.compute_chars, response.metadata.compute_tokens
        response.ClearField("metadata")
        return response, counts
    return response


async def test_an_error_ends_the_stream_after_the_answers_before_it(embedder: ServedModel) -> None:
    call = embedder.embed.EmbedStream()
    for text in ("warp", "weft", LONG):
        await call.write(tei.EmbedRequest(inputs=text))
    assert (await call.read()).metadata.compute_chars == 4
    assert (await call.read()).metadata.compute_chars == 4
    status, message = await status_of(call.read())
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert f"the limit is {TOKENS_MAX} tokens" in message


async def test_streams_of_tei_are_measured_as_calls_and_the_coalescing_stream_is_not(tmp_path: Path) -> None:
    port = free_port()
    async with (
        engine_pod(tmp_path) as engine,
        tokenizer_pod(tmp_path, engine, metrics_port=port) as address,
        Client(address) as client,
        open_channel(address) as channel,
    ):
        await client.vectors(["warp"])
        await read_all(tei_pb2_grpc.EmbedStub(channel).EmbedStream(iter([tei.EmbedRequest(inputs="warp")])))
        calls = (await scrape(f"http://127.0.0.1:{port}")).labels_of("heddle_rpc_call_seconds_count", "method")
    assert "/tei.v1.Embed/EmbedStream" in calls
    assert "/heddle.v1.InferenceService/Infer" not in calls


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
