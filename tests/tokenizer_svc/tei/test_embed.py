"""tei.v1.Embed against a pod: the vectors are those of heddle.v1, and the flags have TEI's meaning."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from heddle import tensors
from heddle.tei.v1 import tei_pb2 as tei
from heddle.v1 import engine_pb2
from heddle.v1 import inference_pb2 as pb
from tests.tokenizer_svc.fake_engine import FakeEngine
from tests.tokenizer_svc.tei.served_model import TOKENS_MAX, ServedModel, served, status_of, texts
from tokenizer_svc.engines import Engines
from tokenizer_svc.text.sequences import TokenSequence

INVALID = grpc.StatusCode.INVALID_ARGUMENT
LONG = " ".join(f"thread{number}" for number in range(TOKENS_MAX))


async def heddle_vector(model: ServedModel, text: str, **wanted: Any) -> list[float]:
    response = await model.heddle.Embed(pb.EmbedRequest(inputs=texts(text), **wanted))
    rows: list[list[float]] = tensors.from_proto(response.embeddings).tolist()
    return rows[0]


async def test_a_vector_is_that_of_heddle_v1(embedder: ServedModel) -> None:
    response = await embedder.embed.Embed(tei.EmbedRequest(inputs="warp and weft"))
    assert list(response.embeddings) == await heddle_vector(embedder, "warp and weft")


async def test_a_vector_is_normalised_unless_the_caller_declines(embedder: ServedModel) -> None:
    default = await embedder.embed.Embed(tei.EmbedRequest(inputs="warp"))
    wanted = await embedder.embed.Embed(tei.EmbedRequest(inputs="warp", normalize=True))
    declined = await embedder.embed.Embed(tei.EmbedRequest(inputs="warp", normalize=False))
    assert np.linalg.norm(default.embeddings) == pytest.approx(1, abs=1e-5)
    assert list(wanted.embeddings) == list(default.embeddings)
    assert np.linalg.norm(declined.embeddings) > 2
    assert list(declined.embeddings) == await heddle_vector(embedder, "warp", skip_normalization=True)


async def test_dimensions_cut_the_vector_before_it_is_normalised(embedder: ServedModel) -> None:
    response = await embedder.embed.Embed(tei.EmbedRequest(inputs="warp", dimensions=8))
    assert len(response.embeddings) == 8
    assert np.linalg.norm(response.embeddings) == pytest.approx(1, abs=1e-5)


async def test_a_prompt_is_put_before_the_text(embedder: ServedModel) -> None:
    prompted = await embedder.embed.Embed(tei.EmbedRequest(inputs="warp", prompt_name="query"))
    by_hand = await embedder.embed.Embed(tei.EmbedRequest(inputs="Ask: warp"))
    assert list(prompted.embeddings) == list(by_hand.embeddings)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (tei.EmbedRequest(), "empty"),
        (tei.EmbedRequest(inputs="warp", dimensions=0), "dimensions must be at least 1"),
        (tei.EmbedRequest(inputs="warp", dimensions=385), "384"),
        (tei.EmbedRequest(inputs="warp", prompt_name="answer"), "no prompt named 'answer'"),
        (tei.EmbedRequest(inputs="warp", truncation_direction=7), "no truncation direction 7"),  # type: ignore[arg-type]
        (tei.EmbedRequest(inputs=LONG), f"the limit is {TOKENS_MAX} tokens"),
    ],
)
async def test_a_bad_request_is_an_invalid_argument(
    embedder: ServedModel, request_: tei.EmbedRequest, words: str
) -> None:
    status, message = await status_of(embedder.embed.Embed(request_))
    assert (status, words in message) == (INVALID, True), message


async def test_truncation_takes_the_side_that_was_named(embedder: ServedModel) -> None:
    right = await embedder.embed.Embed(tei.EmbedRequest(inputs=LONG, truncate=True))
    left = tei.EmbedRequest(inputs=LONG, truncate=True, truncation_direction=tei.TRUNCATION_DIRECTION_LEFT)
    from_left = await embedder.embed.Embed(left)
    assert list(right.embeddings) == await heddle_vector(embedder, LONG, truncation_side=pb.TRUNCATION_SIDE_RIGHT)
    assert list(from_left.embeddings) == await heddle_vector(embedder, LONG, truncation_side=pb.TRUNCATION_SIDE_LEFT)
    assert right.metadata.compute_tokens == from_left.metadata.compute_tokens == TOKENS_MAX


@pytest.mark.parametrize("truncate", [True, False])
async def test_the_callers_flag_overrides_the_truncation_setting_of_the_pod(tmp_path: Path, truncate: bool) -> None:
    async with served(tmp_path, truncate=truncate, truncation_side="left") as model:
        right = await model.embed.Embed(tei.EmbedRequest(inputs=LONG, truncate=True))
        wanted = {"truncation": pb.TRUNCATION_ALLOW, "truncation_side": pb.TRUNCATION_SIDE_RIGHT}
        assert list(right.embeddings) == await heddle_vector(model, LONG, **wanted)
        assert (await status_of(model.embed.Embed(tei.EmbedRequest(inputs=LONG))))[0] is INVALID


async def test_metadata_state_what_was_computed_and_how_long_it_took(embedder: ServedModel) -> None:
    metadata = (await embedder.embed.Embed(tei.EmbedRequest(inputs="naïve 🙂", prompt_name="query"))).metadata
    tokens = await embedder.tokenize.Tokenize(
        tei.EncodeRequest(inputs="naïve 🙂", prompt_name="query", add_special_tokens=True)
    )
    assert metadata.compute_chars == 7
    assert metadata.compute_tokens == len(tokens.tokens)
    assert metadata.total_time_ns >= metadata.tokenization_time_ns > 0
    assert metadata.total_time_ns >= metadata.inference_time_ns >= 100_000  # what the simulated engine takes


async def test_a_unary_call_has_the_metadata_as_headers_too(embedder: ServedModel) -> None:
    call = embedder.embed.Embed(tei.EmbedRequest(inputs="warp"))
    metadata, headers = (await call).metadata, dict(await call.initial_metadata())
    assert headers["x-compute-tokens"] == str(metadata.compute_tokens)
    assert headers["x-compute-characters"] == "4"
    assert headers["x-total-time"] == str(metadata.total_time_ns // 1_000_000)


async def test_every_token_has_a_vector(embedder: ServedModel) -> None:
    response = await embedder.embed.EmbedAll(tei.EmbedAllRequest(inputs="warp and weft"))
    expected = await embedder.heddle.EmbedTokens(pb.EmbedTokensRequest(inputs=texts("warp and weft")))
    rows = [list(token.embeddings) for token in response.token_embeddings]
    assert rows == tensors.from_proto(expected.embeddings[0]).tolist()
    assert len(rows) == response.metadata.compute_tokens > 3


async def test_a_sparse_vector_is_its_entries(sparse_embedder: ServedModel) -> None:
    response = await sparse_embedder.embed.EmbedSparse(tei.EmbedSparseRequest(inputs="warp and weft"))
    expected = (
        await sparse_embedder.heddle.EmbedSparse(pb.EmbedSparseRequest(inputs=texts("warp and weft")))
    ).embeddings[0]
    assert [entry.index for entry in response.sparse_embeddings] == np.frombuffer(expected.indices, "<u4").tolist()
    assert [entry.value for entry in response.sparse_embeddings] == np.frombuffer(expected.values, "<f4").tolist()
    assert response.sparse_embeddings


async def test_a_task_that_the_model_lacks_is_a_failed_precondition(embedder: ServedModel) -> None:
    for call in (
        embedder.embed.EmbedSparse(tei.EmbedSparseRequest(inputs="warp")),
        embedder.predict.Predict(tei.PredictRequest(inputs="warp")),
        embedder.rerank.Rerank(tei.RerankRequest(query="warp", texts=["weft"])),
    ):
        assert (await status_of(call))[0] is grpc.StatusCode.FAILED_PRECONDITION


class NanEngine(FakeEngine):
    def is_broken(self, sequence: TokenSequence, output: engine_pb2.Output) -> bool:
        return True


async def test_a_model_that_computes_nan_is_a_failed_precondition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = NanEngine()
    monkeypatch.setattr(Engines, "submit", lambda _, *submission: engine.submit(*submission))
    async with served(tmp_path) as model:
        unary, stream = model.embed.Embed(tei.EmbedRequest(inputs="warp")), model.embed.EmbedStream()
        await stream.write(tei.EmbedRequest(inputs="weft"))
        for call in (unary, stream.read()):
            status, message = await status_of(call)
            assert (status, "NaN" in message) == (grpc.StatusCode.FAILED_PRECONDITION, True), message


async def test_the_tokenizer_drops_a_nul(embedder: ServedModel) -> None:
    with_nul = await embedder.embed.Embed(tei.EmbedRequest(inputs="warp\0weft"))
    assert list(with_nul.embeddings) == await heddle_vector(embedder, "warpweft")
