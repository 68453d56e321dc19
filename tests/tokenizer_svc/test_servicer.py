"""The tokenizer pod as its callers see it: answers, refusals, and readiness with and without engines."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import engine_svc.pod as engine
from heddle import tensors
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.language_models import AUTO
from heddle.checkpoint.model_source import PACKAGED_NAME, locate
from heddle.checkpoint.sentence_modules import PoolingSetting
from heddle.cli.readiness import grpc_ready
from heddle.client import CallOptions, Client, UnaryClient
from heddle.rpc.deadlines import NEVER
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.stream import LargeOutcome
from heddle.telemetry.logs import TextFormatter
from heddle.v1 import inference_pb2 as pb
from heddle.v1 import item_pb2, tensor_pb2
from tests.cluster import engine_pod, tokenizer_pod
from tests.tokenizer_svc.fake_engine import FakeEngine
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.servicer import InferenceServicer
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.text.tokenizer import Tokenizer

SERVICE = "heddle.v1.InferenceService"


def texts(*inputs: str) -> list[pb.Input]:
    return [pb.Input(text=text) for text in inputs]


def ids(*token_ids: int) -> pb.Input:
    return pb.Input(token_ids=np.array(token_ids, "<u4").tobytes())


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with (
        engine_pod(tmp_path) as at,
        tokenizer_pod(tmp_path, at, request_inputs_max=8) as address,
        Client(address) as made,
    ):
        yield made


BAD_REQUESTS = [
    (pb.EmbedRequest(), ErrorKind.EMPTY_INPUT, "inputs", "at least one"),
    (pb.EmbedRequest(inputs=[pb.Input()]), ErrorKind.EMPTY_INPUT, "inputs[0]", "empty"),
    (pb.EmbedRequest(inputs=texts("a", "")), ErrorKind.EMPTY_INPUT, "inputs[1]", "empty"),
    (pb.EmbedRequest(inputs=texts(*"123456789")), ErrorKind.TOO_LARGE, "inputs", "9 inputs, the limit is 8"),
    (pb.EmbedRequest(inputs=[ids(101, 30522)]), ErrorKind.INVALID_INPUT, "inputs[0]", "outside the model's vocabulary"),
    (pb.EmbedRequest(inputs=[pb.Input(token_ids=b"123")]), ErrorKind.INVALID_INPUT, "inputs[0]", "whole number"),
    (pb.EmbedRequest(inputs=texts("a"), dimensions=385), ErrorKind.INVALID_INPUT, "dimensions", "384"),
    (pb.EmbedRequest(inputs=texts("a"), prompt_name="query"), ErrorKind.INVALID_INPUT, "prompt_name", "no prompt"),
    (pb.EmbedRequest(inputs=texts("a"), model="bert"), ErrorKind.MODEL_NOT_FOUND, "model", "no model 'bert' here"),
    (pb.EmbedRequest(inputs=texts("a"), truncation=9), ErrorKind.INVALID_INPUT, "truncation", "9"),  # type: ignore[arg-type]
    (
        pb.EmbedRequest(inputs=texts("a"), truncation_side=9),  # type: ignore[arg-type]
        ErrorKind.INVALID_INPUT,
        "truncation_side",
        "9",
    ),
    (pb.EmbedRequest(inputs=texts("a"), data_type=99), ErrorKind.INVALID_INPUT, "data_type", "99"),  # type: ignore[arg-type]
    (
        pb.EmbedRequest(inputs=texts("a " * 300), truncation=pb.TRUNCATION_REFUSE),
        ErrorKind.TOO_LARGE,
        "inputs[0]",
        "302 tokens, the limit is 256",
    ),
]


@pytest.mark.parametrize(("request_", "kind", "field", "words"), BAD_REQUESTS)
async def test_a_bad_request_is_refused_and_its_neighbours_are_served(
    client: Client, request_: pb.EmbedRequest, kind: ErrorKind, field: str, words: str
) -> None:
    neighbours = [asyncio.create_task(client.vectors([f"neighbour {number}"])) for number in range(10)]
    with pytest.raises(HeddleError) as caught:
        await client.embed(request_)
    assert (caught.value.kind, caught.value.field) == (kind, field)
    assert words in caught.value.message
    assert all(vectors.shape == (1, 384) for vectors in await asyncio.gather(*neighbours))


async def test_fields_that_are_not_known_are_ignored(client: Client) -> None:
    unknown = pb.EmbedRequest.FromString(pb.EmbedRequest(inputs=texts("a")).SerializeToString() + b"\xfa\x3f\x01x")
    assert (await client.embed(unknown)).usage.tokens == 3


async def test_an_item_of_a_newer_contract_is_refused_alone(client: Client) -> None:
    neighbour = asyncio.create_task(client.vectors(["a"]))
    with pytest.raises(HeddleError, match="no request"):
        await client.infer(pb.InferenceItem())
    await neighbour


async def test_a_refusal_is_logged_with_the_id_of_its_request(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "heddle.rpc.stream_session")
    caplog.handler.setFormatter(TextFormatter())
    with pytest.raises(HeddleError):
        await client.embed(pb.EmbedRequest(inputs=texts("")), CallOptions(request_id="mine-7"))
    assert "refused as EMPTY_INPUT (inputs[0]): the text is empty [request mine-7]" in caplog.text


async def test_requests_leave_nothing_for_the_garbage_collector_to_find(client: Client) -> None:
    await client.vectors(["the first call connects"])
    gc.collect()
    gc.disable()
    try:
        await asyncio.gather(*(client.vectors([f"text {number}"]) for number in range(1000)))
        found = gc.collect()
    finally:
        gc.enable()
    assert found < 100  # of the tens of objects that each request needs


async def test_token_ids_are_taken_as_they_are(client: Client) -> None:
    from_text = await client.embed(pb.EmbedRequest(inputs=texts("hello")))
    from_ids = await client.embed(pb.EmbedRequest(inputs=[ids(101, 7592, 102)]))
    assert from_text.embeddings == from_ids.embeddings
    assert from_ids.usage.tokens == 3


async def test_usage_counts_what_was_computed(client: Client) -> None:
    response = await client.embed(pb.EmbedRequest(inputs=texts("a", "a " * 300)))
    assert response.usage.tokens == 3 + 256
    assert response.usage.truncated_inputs == 1
    assert response.timings.total_us >= response.timings.tokenize_us > 0


async def test_truncation_follows_the_settings_unless_the_request_overrides_them(tmp_path: Path) -> None:
    async def vector(side: pb.TruncationSide = pb.TRUNCATION_SIDE_UNSPECIFIED) -> bytes:
        request = pb.EmbedRequest(inputs=texts(long), truncation=pb.TRUNCATION_ALLOW, truncation_side=side)
        return (await client.embed(request)).embeddings.data

    long = "first " * 300 + "last " * 300
    async with (
        engine_pod(tmp_path) as at,
        tokenizer_pod(tmp_path, at, truncate=False, truncation_side="left") as address,
        Client(address) as client,
    ):
        assert (await client.get_model()).refuses_long_inputs
        for side in (pb.TRUNCATION_SIDE_UNSPECIFIED, pb.TRUNCATION_SIDE_RIGHT, pb.TRUNCATION_SIDE_LEFT):
            with pytest.raises(HeddleError, match="602 tokens, the limit is 256"):
                await client.embed(pb.EmbedRequest(inputs=texts(long), truncation_side=side))
        assert (
            await vector() == await vector(pb.TRUNCATION_SIDE_LEFT) == (await client.vectors(["last " * 254])).tobytes()
        )
        assert await vector(pb.TRUNCATION_SIDE_RIGHT) == (await client.vectors(["first " * 254])).tobytes()


async def test_a_pod_truncates_on_the_right_unless_it_is_set_otherwise(client: Client) -> None:
    assert not (await client.get_model()).refuses_long_inputs
    cut = await client.vectors(["first " * 300 + "last " * 300])
    assert np.array_equal(cut, await client.vectors(["first " * 254]))


@pytest.mark.parametrize(
    ("data_type", "size"),
    [(tensor_pb2.DATA_TYPE_FLOAT16, 768), (tensor_pb2.DATA_TYPE_INT8, 384), (tensor_pb2.DATA_TYPE_UBINARY, 48)],
)
async def test_vectors_have_the_requested_data_type(client: Client, data_type: tensor_pb2.DataType, size: int) -> None:
    response = await client.embed(pb.EmbedRequest(inputs=texts("a", "b"), data_type=data_type))
    assert response.embeddings.data_type == data_type
    assert tuple(response.embeddings.shape) == (2, 384)
    assert len(response.embeddings.data) == 2 * size
    assert tensors.from_proto(response.embeddings).shape == (2, 384)


async def test_engine_with_another_tokenizer_is_refused_until_the_right_one_comes(tmp_path: Path) -> None:
    class Other(Checkpoint):
        @classmethod
        def read(
            cls, folder: Path, name: str = "", pooling: PoolingSetting = "auto", score_tokens: str = AUTO
        ) -> Checkpoint:
            return replace(Checkpoint.read(folder, name, pooling), tokenizer_fingerprint="f" * 64)

    address = f"unix:{tmp_path}/tokenizer"
    with patch.object(engine, "Checkpoint", Other):
        wrong = engine_pod(tmp_path)
        at = await wrong.__aenter__()
    pod = tokenizer_pod(tmp_path, at, address=address)
    entering = asyncio.create_task(pod.__aenter__())
    await asyncio.sleep(0.5)
    assert not entering.done()
    assert not await grpc_ready(address, SERVICE)
    await wrong.__aexit__(None, None, None)
    async with engine_pod(tmp_path):
        await entering
        async with Client(address) as client:
            assert (await client.vectors(["at last"])).shape == (1, 384)
        await pod.__aexit__(None, None, None)


async def test_a_pod_with_another_tokenizer_never_becomes_ready(tmp_path: Path) -> None:
    async with engine_pod(tmp_path) as at:
        strange = replace(Checkpoint.read(locate(PACKAGED_NAME)), tokenizer_fingerprint="f" * 64)
        with patch("tokenizer_svc.__main__.Checkpoint.read", lambda *_, **__: strange), pytest.raises(TimeoutError):
            async with asyncio.timeout(1), tokenizer_pod(tmp_path, at):
                pytest.fail("ready with an engine of another model")


async def test_readiness_follows_the_engines(tmp_path: Path) -> None:
    async def becomes(ready: bool) -> None:
        async with asyncio.timeout(5):
            while await grpc_ready(f"unix:{tmp_path}/tokenizer", SERVICE) is not ready:
                await asyncio.sleep(0.02)

    engine_stack = contextlib.AsyncExitStack()
    at = await engine_stack.enter_async_context(engine_pod(tmp_path))
    async with tokenizer_pod(tmp_path, at) as address:
        await engine_stack.aclose()
        await becomes(ready=False)
        async with Client(address) as client:
            waiting = asyncio.create_task(client.vectors(["is anybody there?"]))
            async with engine_pod(tmp_path):
                await becomes(ready=True)
                assert (await waiting).shape == (1, 384)


async def test_a_long_request_does_not_stall_a_short_one(tmp_path: Path) -> None:
    """2,000 sequences of one caller wait at an engine that takes a while; a single text of another goes between."""
    slow: Any = {"simulated_fixed_us": 20_000, "batch_items_max": 16}
    async with (
        engine_pod(tmp_path, **slow) as at,
        tokenizer_pod(tmp_path, at) as address,
        UnaryClient(address) as client,
    ):
        storm = asyncio.create_task(client.vectors([f"text {number}" for number in range(2000)]))
        await asyncio.sleep(0.3)
        assert (await client.vectors(["short"], CallOptions(timeout_s=1.0))).shape == (1, 384)
        assert not storm.done()
        assert (await storm).shape == (2000, 384)


@pytest.mark.parametrize("name", ["embed", "decode"])
async def test_load_counts_requests_until_they_are_answered_or_cancelled(name: str) -> None:
    checkpoint = Checkpoint.read(locate(PACKAGED_NAME))
    tokenizer = Tokenizer.load(checkpoint)
    encoder, engines = Encoder(tokenizer), FakeEngine()
    settings = TokenizerSettings()
    servicer = InferenceServicer(checkpoint, tokenizer, encoder, engines, settings)  # type: ignore[arg-type]
    requests: dict[str, Any] = {
        "embed": pb.EmbedRequest(inputs=texts("a")),
        "decode": pb.DecodeRequest(token_ids=[ids(7592).token_ids]),
    }
    replies: list[pb.InferenceOutcome | LargeOutcome[pb.InferenceOutcome] | HeddleError] = []
    cancels = [servicer.submit(pb.InferenceItem(**{name: requests[name]}), NEVER, replies.append) for _ in range(2)]
    assert servicer.load().waiting_items == 2
    cancels[0]()
    async with asyncio.timeout(5):
        while servicer.load().waiting_items:
            await asyncio.sleep(0.001)
    cancels[1]()
    [reply] = replies
    assert isinstance(reply, pb.InferenceOutcome)
    assert servicer.load() == item_pb2.Load()
    await encoder.close()
