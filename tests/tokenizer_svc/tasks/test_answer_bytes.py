"""An answer that is too large is refused as soon as its size is known, and other requests are not affected."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heddle.client import CallOptions, InferenceClient
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2 as pb
from heddle.v1 import tensor_pb2
from tests.kinds import EMOTIONS, write_classifier, write_sparse_embedder, write_token_classifier
from tests.tokenizer_svc.fake_engine import FakeEngine
from tests.tokenizer_svc.tasks.conftest import Serve
from tests.tokenizer_svc.tei.served_model import write_embedder
from tokenizer_svc.settings import TokenizerSettings

Call = Callable[[InferenceClient, int], Any]


def inputs(count: int) -> list[pb.Input]:
    return [pb.Input(text=f"loom {number}") for number in range(count)]


def texts(count: int) -> list[str]:
    return [f"Ada {number}" for number in range(count)]


# The inputs have 4 or 5 tokens each; a limit is the size of an answer for about 10 of them.
CALLS: list[tuple[Callable[[Path], Path], Call, int]] = [
    (write_embedder, lambda client, count: client.embed(pb.EmbedRequest(inputs=inputs(count))), 1536 * 10),
    (
        write_embedder,
        lambda client, count: client.embed_tokens(
            pb.EmbedTokensRequest(inputs=inputs(count), data_type=tensor_pb2.DATA_TYPE_FLOAT16)
        ),
        4 * 768 * 10,
    ),
    (
        write_classifier,
        lambda client, count: client.predict(
            pb.PredictRequest(inputs=[pb.TextOrPair(text=text) for text in texts(count)])
        ),
        2 * 4 * len(EMOTIONS) * 10,
    ),
    (
        write_token_classifier,
        lambda client, count: client.predict_tokens(pb.PredictTokensRequest(inputs=texts(count), raw_scores=True)),
        4 * 105 * 10,
    ),
    (
        write_token_classifier,
        lambda client, count: client.predict_tokens(pb.PredictTokensRequest(inputs=texts(count))),
        1200,
    ),
    (
        write_sparse_embedder,
        lambda client, count: client.embed_sparse(pb.EmbedSparseRequest(inputs=inputs(count))),
        220 * 10,
    ),
]
IDS = ["embed", "embed_tokens", "predict", "predict_tokens raw", "predict_tokens", "embed_sparse"]


@pytest.mark.parametrize(("write", "call", "limit"), CALLS, ids=IDS)
async def test_an_answer_over_the_limit_is_refused_and_one_within_it_is_not(
    serve: Serve, write: Callable[[Path], Path], call: Call, limit: int
) -> None:
    client = await serve(write, answer_bytes_max=limit)
    await call(client, 8)
    with pytest.raises(HeddleError, match=f"the answer would exceed the limit of {limit} bytes") as refused:
        await call(client, 30)
    assert refused.value.kind is ErrorKind.TOO_LARGE


async def test_an_answer_of_known_size_is_refused_before_it_is_computed(serve: Serve) -> None:
    engine = FakeEngine()
    client = await serve(write_embedder, engine, answer_bytes_max=4 * 1536 * 10)
    neighbours = [asyncio.create_task(client.vectors([f"neighbour {number}"])) for number in range(10)]
    with pytest.raises(HeddleError):
        await client.embed_tokens(pb.EmbedTokensRequest(inputs=inputs(500)))
    assert all(vectors.shape == (1, 384) for vectors in await asyncio.gather(*neighbours))
    assert len(engine.sequences) == 10
    assert len((await client.embed_tokens(pb.EmbedTokensRequest(inputs=inputs(8)))).embeddings) == 8


async def test_the_bytes_of_all_answers_are_limited_and_given_back(serve: Serve) -> None:
    slow = FakeEngine()
    slow.delay_s = 0.5
    client = await serve(write_embedder, slow, answer_bytes_max=1536 * 10, answers_bytes_max=1536 * 10)

    async def ask(count: int, timeout_s: float = 10) -> tuple[ErrorKind, int] | None:
        try:
            await client.embed(pb.EmbedRequest(inputs=inputs(count)), CallOptions(timeout_s=timeout_s))
        except HeddleError as error:
            return error.kind, error.retry_after_ms
        return None

    for ends in (ask(6), ask(6, timeout_s=0.2)):  # answered, and cancelled
        first = asyncio.create_task(ends)
        await asyncio.sleep(0.1)
        assert await ask(6) == (ErrorKind.OVERLOADED, 1000)
        assert await ask(4) is None
        await first
        assert await ask(11) == (ErrorKind.TOO_LARGE, 0)
        assert await ask(10) is None


def test_a_limit_that_grpc_would_not_keep_cannot_be_set() -> None:
    with pytest.raises(ValueError, match="answer_bytes_max must be at most"):
        TokenizerSettings(answer_bytes_max=256 << 20)
    with pytest.raises(ValueError, match="answers_bytes_max must be at least"):
        TokenizerSettings(answer_bytes_max=1 << 20, answers_bytes_max=1 << 19)
