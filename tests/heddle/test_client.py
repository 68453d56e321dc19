"""Both clients against real pods: the same answers, the same errors, deadlines and cancels that reach the engine."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heddle.client import CallOptions, Client, InferenceClient, UnaryClient
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.pool import PoolLimits
from heddle.v1 import inference_pb2 as pb
from heddle.v1 import model_pb2
from tests.cluster import engine_pod, tokenizer_pod
from tests.slow_backend import SlowBackend


@pytest.fixture
async def tokenizer(tmp_path: Path) -> AsyncIterator[str]:
    async with engine_pod(tmp_path) as engine, tokenizer_pod(tmp_path, engine) as address:
        yield address


@pytest.fixture(params=["stream", "unary"])
async def client(tokenizer: str, request: pytest.FixtureRequest) -> AsyncIterator[InferenceClient]:
    made: InferenceClient = Client(tokenizer) if request.param == "stream" else UnaryClient(tokenizer)
    async with made:
        yield made


async def test_vectors_come_in_the_order_of_the_texts(client: InferenceClient) -> None:
    texts = [f"text number {number}" for number in range(50)]
    together = await client.vectors(texts)
    alone = np.concatenate([await client.vectors([text]) for text in texts])
    assert together.shape == (50, 384)
    assert np.array_equal(together, alone)


async def test_texts_are_truncated_to_the_requested_tokens(client: InferenceClient) -> None:
    cut = await client.vectors(["one two three four"], input_tokens_max=4)
    assert np.array_equal(cut, await client.vectors(["one two"]))


async def test_the_first_calls_may_come_together(tokenizer: str) -> None:
    client = Client(tokenizer)  # not entered: the first call connects
    try:
        assert len(await asyncio.gather(*(client.vectors([str(number)]) for number in range(20)))) == 20
    finally:
        await client.close()


async def test_stream_and_unary_give_the_same_bytes(tokenizer: str) -> None:
    request = pb.EmbedRequest(inputs=[pb.Input(text="a"), pb.Input(text="b")], dimensions=7)
    async with Client(tokenizer) as stream, UnaryClient(tokenizer) as unary:
        answers = [await stream.embed(request), await unary.embed(request)]
    assert answers[0].embeddings == answers[1].embeddings
    assert answers[0].usage == answers[1].usage
    assert tuple(answers[0].embeddings.shape) == (2, 7)


async def test_an_error_is_the_same_whatever_carried_it(client: InferenceClient) -> None:
    request = pb.EmbedRequest(inputs=[pb.Input(text="fine"), pb.Input(text="")])
    with pytest.raises(HeddleError, match="the text is empty") as caught:
        await client.embed(request)
    assert caught.value.kind is ErrorKind.EMPTY_INPUT
    assert caught.value.field == "inputs[1]"


async def test_a_single_string_is_rejected(client: InferenceClient) -> None:
    with pytest.raises(TypeError, match="a list of strings, not one string"):
        await client.vectors("hi")


@pytest.mark.parametrize("texts", [[5], ["a", [101, 102]], ["a", None]])
async def test_a_value_that_is_no_text_is_named(client: InferenceClient, texts: list[Any]) -> None:
    with pytest.raises(TypeError, match=rf"texts\[{len(texts) - 1}\] must be a string, not"):
        await client.vectors(texts)


async def test_every_method_returns_its_own_result(client: InferenceClient) -> None:
    text = pb.Input(text="hello")
    vectors = (await client.embed_tokens(pb.EmbedTokensRequest(inputs=[text]))).embeddings
    assert [tuple(vector.shape) for vector in vectors] == [(3, 384)]
    similarity = await client.similarity(pb.SimilarityRequest(source="hello", sentences=["hello", "world"]))
    assert np.frombuffer(similarity.scores, "<f4")[0] == pytest.approx(1, abs=1e-6)
    (tokens,) = (await client.tokenize(pb.TokenizeRequest(inputs=["hello"]))).results
    assert [token.text for token in tokens.tokens] == ["[CLS]", "hello", "[SEP]"]
    ids = np.array([token.id for token in tokens.tokens], "<u4").tobytes()
    assert (await client.decode(pb.DecodeRequest(token_ids=[ids]))).texts == ["hello"]


async def test_the_error_for_a_wrong_task_names_the_kind_of_the_model(client: InferenceClient) -> None:
    for call in (
        client.rerank(pb.RerankRequest(query="a", documents=["b"])),
        client.predict(pb.PredictRequest(inputs=[pb.TextOrPair(text="a")])),
        client.predict_tokens(pb.PredictTokensRequest(inputs=["a"])),
        client.embed_sparse(pb.EmbedSparseRequest(inputs=[pb.Input(text="a")])),
    ):
        with pytest.raises(HeddleError, match="embedder") as caught:
            await call
        assert caught.value.kind is ErrorKind.WRONG_TASK


async def test_a_model_describes_itself(client: InferenceClient) -> None:
    model = await client.get_model()
    assert model.kind == model_pb2.MODEL_KIND_EMBEDDER
    assert (model.dimension, model.sequence_tokens_max, model.inputs_max) == (384, 256, 2048)
    assert model.backend == "simulated"


@pytest.mark.parametrize("kind", [Client, UnaryClient])
async def test_a_call_ends_at_its_deadline(kind: type[Client | UnaryClient], tmp_path: Path) -> None:
    backend = SlowBackend()
    async with (
        engine_pod(tmp_path, backend) as engine,
        tokenizer_pod(tmp_path, engine) as address,
        kind(address) as client,
    ):
        backend.is_warm = True
        began = time.monotonic()
        with pytest.raises(HeddleError) as caught:
            await client.vectors(["too slow"], CallOptions(timeout_s=0.1))
    assert caught.value.kind is ErrorKind.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 0.45 + 2  # the pods finish what is running before they stop


@pytest.mark.parametrize("kind", [Client, UnaryClient])
async def test_a_cancelled_call_leaves_the_queue_of_the_engine(
    kind: type[Client | UnaryClient], tmp_path: Path
) -> None:
    backend = SlowBackend()
    async with (
        engine_pod(tmp_path, backend) as engine,
        tokenizer_pod(tmp_path, engine) as address,
        kind(address) as client,
    ):
        backend.is_warm = True
        first = asyncio.create_task(client.vectors(["occupies the worker"]))
        while not backend.ran:
            await asyncio.sleep(0.01)
        doomed = [asyncio.create_task(client.vectors([f"never wanted {n}"])) for n in range(20)]
        await asyncio.sleep(0.2)
        for task in doomed:
            task.cancel()
        await first
        await client.vectors(["the next one"])
    assert backend.ran == 2


async def test_an_unreachable_target_is_an_error_in_time(tmp_path: Path) -> None:
    limits = PoolLimits(no_pod_s_max=0.2)
    async with Client(f"unix:{tmp_path}/nobody", limits=limits) as client:
        with pytest.raises(HeddleError, match="no pod can be reached") as caught:
            await client.vectors(["hello?"])
        with pytest.raises(HeddleError, match="no pod can be reached"):
            await client.get_model(CallOptions(timeout_s=0.2))
    assert caught.value.kind is ErrorKind.UNAVAILABLE


async def test_a_deadline_that_passes_without_a_pod_names_the_target(tmp_path: Path) -> None:
    async with Client(f"unix:{tmp_path}/nobody") as client:
        with pytest.raises(HeddleError, match=f"no pod can be reached at unix:{tmp_path}/nobody") as caught:
            await client.vectors(["a"], CallOptions(timeout_s=0.2))
        assert caught.value.kind is ErrorKind.UNAVAILABLE


async def test_a_known_model_is_returned_without_a_pod(tmp_path: Path) -> None:
    async with engine_pod(tmp_path) as engine:
        pod = tokenizer_pod(tmp_path, engine)
        async with Client(await pod.__aenter__()) as client:
            model = await client.get_model()
            await pod.__aexit__(None, None, None)
            while client.ready:
                await asyncio.sleep(0.01)
            async with asyncio.timeout(0.2):
                assert await client.get_model() == model


async def test_get_model_waits_no_longer_than_a_call(tmp_path: Path) -> None:
    async with Client(f"unix:{tmp_path}/nobody", limits=PoolLimits(no_pod_s_max=0.1)) as client:
        for timeout_s in (60.0, None):
            async with asyncio.timeout(5):
                with pytest.raises(HeddleError, match="no pod can be reached") as caught:
                    await client.get_model(CallOptions(timeout_s=timeout_s))
            assert caught.value.kind is ErrorKind.UNAVAILABLE


async def test_a_call_outlives_the_tokenizer_pod_that_had_it(tmp_path: Path) -> None:
    """One of two tokenizer pods is asked to stop during the calls."""
    async with engine_pod(tmp_path, simulated_fixed_us=20_000) as engine:
        pods = [tokenizer_pod(tmp_path, engine, address=f"unix:{tmp_path}/tokenizer{number}") for number in range(2)]
        first, second = pods[0], pods[1]
        one, two = await first.__aenter__(), await second.__aenter__()
        async with Client(one, two) as client:
            calls = [asyncio.create_task(client.vectors([f"call {number}"])) for number in range(200)]
            await asyncio.sleep(0.05)
            await first.__aexit__(None, None, None)
            vectors = await asyncio.gather(*calls)
            assert len(vectors) == 200
        await second.__aexit__(None, None, None)
