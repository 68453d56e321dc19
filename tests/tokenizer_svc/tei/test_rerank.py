"""tei.v1.Rerank against a pod: texts by score, from one request or from a stream of single texts."""

from pathlib import Path

import grpc
import numpy as np
import pytest

from heddle.tei.v1 import tei_pb2 as tei
from heddle.v1 import inference_pb2 as pb
from tests.high_logits import BEST_FIRST, WORDS, HighLogits
from tests.kinds import write_reranker
from tests.tokenizer_svc.tei.served_model import TOKENS_MAX, ServedModel, served, status_of

QUERY = "what is a loom"
TEXTS = [f"thread {number}" for number in range(40)]


async def heddle_scores(model: ServedModel, *, raw_scores: bool = False) -> list[float]:
    response = await model.heddle.Rerank(pb.RerankRequest(query=QUERY, documents=TEXTS, raw_scores=raw_scores))
    scores: list[float] = np.frombuffer(response.scores, "<f4").tolist()
    return scores


async def test_ranks_are_sorted_and_name_their_text_by_index(reranker: ServedModel) -> None:
    response = await reranker.rerank.Rerank(tei.RerankRequest(query=QUERY, texts=TEXTS))
    scores = await heddle_scores(reranker)
    assert [rank.score for rank in response.ranks] == sorted(scores, reverse=True)
    assert [scores[rank.index] for rank in response.ranks] == [rank.score for rank in response.ranks]
    assert sorted(rank.index for rank in response.ranks) == list(range(len(TEXTS)))
    assert not any(rank.HasField("text") for rank in response.ranks)
    assert response.metadata.compute_chars == sum(len(QUERY) + len(text) for text in TEXTS)


async def test_texts_and_raw_scores_are_returned_on_request(reranker: ServedModel) -> None:
    request = tei.RerankRequest(query=QUERY, texts=TEXTS, raw_scores=True, return_text=True)
    response = await reranker.rerank.Rerank(request)
    assert [rank.text for rank in response.ranks] == [TEXTS[rank.index] for rank in response.ranks]
    assert [rank.score for rank in response.ranks] == sorted(
        await heddle_scores(reranker, raw_scores=True), reverse=True
    )


async def test_equal_scores_keep_the_order_of_the_texts(reranker: ServedModel) -> None:
    response = await reranker.rerank.Rerank(tei.RerankRequest(query=QUERY, texts=["same", "same", "same"]))
    assert [rank.index for rank in response.ranks] == [0, 1, 2]


async def test_scores_that_round_to_one_are_ranked_by_their_logits(tmp_path: Path) -> None:
    requests = [tei.RerankStreamRequest(query=QUERY, text=word) for word in WORDS]
    async with served(tmp_path, write_reranker, HighLogits()) as reranker:
        for response in (
            await reranker.rerank.Rerank(tei.RerankRequest(query=QUERY, texts=WORDS)),
            await reranker.rerank.RerankStream(iter(requests)),
        ):
            assert [(rank.index, rank.score) for rank in response.ranks] == [(index, 1.0) for index in BEST_FIRST]


async def test_cosines_of_an_embedder_are_its_scores(tmp_path: Path) -> None:
    requests = [tei.RerankStreamRequest(query=QUERY, text=text) for text in TEXTS]
    async with served(tmp_path, rerank_by_cosine=True) as embedder:
        expected = sorted(await heddle_scores(embedder), reverse=True)
        assert min(expected) < 0 < max(expected)
        for response in (
            await embedder.rerank.Rerank(tei.RerankRequest(query=QUERY, texts=TEXTS)),
            await embedder.rerank.RerankStream(iter(requests)),
        ):
            assert [rank.score for rank in response.ranks] == pytest.approx(expected, abs=1e-6)


async def test_a_stream_of_texts_has_the_answer_of_one_request(reranker: ServedModel) -> None:
    requests = [tei.RerankStreamRequest(query=QUERY, text=text, return_text=True) for text in TEXTS]
    call = reranker.rerank.RerankStream(iter(requests))
    streamed = await call
    whole = await reranker.rerank.Rerank(tei.RerankRequest(query=QUERY, texts=TEXTS, return_text=True))
    assert streamed.ranks == whole.ranks
    assert streamed.metadata.compute_chars == whole.metadata.compute_chars
    assert streamed.metadata.compute_tokens == whole.metadata.compute_tokens
    assert streamed.metadata.total_time_ns >= streamed.metadata.inference_time_ns > 0
    assert dict(await call.initial_metadata())["x-compute-tokens"] == str(streamed.metadata.compute_tokens)


async def test_the_first_text_of_a_stream_sets_the_options(reranker: ServedModel) -> None:
    requests = [
        tei.RerankStreamRequest(query=QUERY, text=text, raw_scores=not index, return_text=bool(index))
        for index, text in enumerate(TEXTS)
    ]
    response = await reranker.rerank.RerankStream(iter(requests))
    assert [rank.score for rank in response.ranks] == sorted(
        await heddle_scores(reranker, raw_scores=True), reverse=True
    )
    assert not any(rank.HasField("text") for rank in response.ranks)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (tei.RerankRequest(query=QUERY), "at least one"),
        (tei.RerankRequest(query=QUERY, texts=["loom " * TOKENS_MAX]), f"the limit is {TOKENS_MAX} tokens"),
        (tei.RerankRequest(query=QUERY, texts=["loom"], truncation_direction=2), "truncation direction 2"),  # type: ignore[arg-type]
    ],
)
async def test_a_bad_request_is_an_invalid_argument(
    reranker: ServedModel, request_: tei.RerankRequest, words: str
) -> None:
    status, message = await status_of(reranker.rerank.Rerank(request_))
    assert (status, words in message) == (grpc.StatusCode.INVALID_ARGUMENT, True), message


async def test_a_stream_without_texts_is_an_invalid_argument(reranker: ServedModel) -> None:
    status = await status_of(reranker.rerank.RerankStream(iter([])))
    assert status == (grpc.StatusCode.INVALID_ARGUMENT, "the stream had no texts")


async def test_a_text_that_fails_fails_the_stream(reranker: ServedModel) -> None:
    call = reranker.rerank.RerankStream()
    for text in ("warp", "loom " * TOKENS_MAX):
        await call.write(tei.RerankStreamRequest(query=QUERY, text=text))
    status, message = await status_of(call)
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert f"the limit is {TOKENS_MAX} tokens" in message


async def test_a_reranker_is_a_classifier_of_one_label(reranker: ServedModel) -> None:
    response = await reranker.predict.PredictPair(tei.PredictPairRequest(inputs=[QUERY, TEXTS[0]]))
    scores = await heddle_scores(reranker)
    assert [(one.label, one.score) for one in response.predictions] == [("LABEL_0", scores[0])]
