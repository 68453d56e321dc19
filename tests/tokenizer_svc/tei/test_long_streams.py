"""Streams of tei.v1 that take a while: thousands of texts, and engines that are slow."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from heddle.rpc.channels import open_channel
from heddle.tei.v1 import tei_pb2 as tei
from tests.cluster import engine_pod, tokenizer_pod
from tests.slow_backend import SlowBackend
from tests.tokenizer_svc.tei.served_model import ServedModel, read_all

pytestmark = pytest.mark.slow

COUNT = 2000


def requests(count: int) -> list[tei.EmbedRequest]:
    return [tei.EmbedRequest(inputs=f"thread {number} " * (1 + number % 7)) for number in range(count)]


async def write_all(call: Any, messages: list[Any]) -> None:
    for message in messages:
        await call.write(message)
    await call.done_writing()


@asynccontextmanager
async def slow_model(folder: Path, **engine_settings: Any) -> AsyncIterator[tuple[ServedModel, SlowBackend]]:
    backend = SlowBackend()
    async with (
        engine_pod(folder, backend, **engine_settings) as engine,
        tokenizer_pod(folder, engine) as address,
        open_channel(address) as channel,
    ):
        backend.is_warm = True
        yield ServedModel(address, channel), backend


async def test_a_caller_that_reads_while_it_writes_gets_its_answers_in_order(embedder: ServedModel) -> None:
    streamed = await read_all(embedder.embed.EmbedStream(iter(requests(COUNT))))
    assert len(streamed) == COUNT
    for number in (0, 1, 6, 777, 1999):
        alone = await embedder.embed.Embed(requests(COUNT)[number])
        assert streamed[number].embeddings == alone.embeddings
        assert streamed[number].metadata.compute_chars == alone.metadata.compute_chars


async def test_a_caller_that_writes_everything_before_it_reads_gets_all_answers(embedder: ServedModel) -> None:
    call = embedder.embed.EmbedStream()
    async with asyncio.timeout(30):
        await write_all(call, requests(COUNT))
        streamed = await read_all(call)
    chars = [len(request.inputs) for request in requests(COUNT)]
    assert [response.metadata.compute_chars for response in streamed] == chars


async def test_texts_of_a_stream_are_computed_together(tmp_path: Path) -> None:
    async with slow_model(tmp_path) as (model, _):
        started = time.monotonic()
        assert len(await read_all(model.embed.EmbedStream(iter(requests(300))))) == 300
    assert time.monotonic() - started < 15  # one by one: 150 s


async def test_a_caller_that_cancels_leaves_no_work_behind(tmp_path: Path) -> None:
    async with slow_model(tmp_path, batch_items_max=4) as (model, backend):
        call = model.embed.EmbedStream()
        await write_all(call, requests(200))
        await call.read()
        call.cancel()
        ran = backend.ran
        await model.embed.Embed(tei.EmbedRequest(inputs="one more"))
        assert backend.ran - ran <= 2 * 4 + 1  # what was being computed or taken when it cancelled, and the one
    assert backend.ran < 20


async def test_a_stream_waits_while_unary_calls_are_refused(tmp_path: Path) -> None:
    async with slow_model(tmp_path, queue_items_max=8) as (model, _):
        calls = (model.embed.Embed(request) for request in requests(20))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = {outcome.code() for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)}
        assert refused == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(await read_all(model.embed.EmbedStream(iter(requests(20))))) == 20


async def test_a_long_stream_does_not_stall_a_single_call(tmp_path: Path) -> None:
    """The texts of the stream are one flow, so the call has its turn in the next batch."""
    async with slow_model(tmp_path, batch_items_max=4) as (model, backend):
        call = model.embed.EmbedStream()
        await write_all(call, requests(200))
        await call.read()
        ran = backend.ran
        await model.embed.Embed(tei.EmbedRequest(inputs="one more"))
        assert backend.ran - ran <= 3 * 4
        call.cancel()
