"""Scores that all round to 1.0 are sorted by their logits, on every route that sorts."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from heddle.client import Client
from heddle.v1 import inference_pb2 as pb
from http_gateway.api.answers import rank
from tests.cluster import engine_pod, tokenizer_pod
from tests.high_logits import BEST_FIRST, LOGIT_OF, WORDS, HighLogits
from tests.http_gateway.calls import answer_to
from tests.kinds import EMOTIONS, http_of, write_multi_label_classifier, write_reranker

QUERY = "which cloth"


@pytest.fixture
async def reranker(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with http_of(tmp_path, write_reranker(tmp_path / "model"), HighLogits()) as http:
        yield http


@pytest.mark.parametrize("path", ["/rerank", "/", "/invocations"])
async def test_texts_are_ranked_by_their_logits(reranker: httpx.AsyncClient, path: str) -> None:
    ranks = await answer_to(reranker, path, query=QUERY, texts=WORDS)
    assert [(item["index"], item["score"]) for item in ranks] == [(index, 1.0) for index in BEST_FIRST]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize("top_n", [None, 1, 4])
async def test_documents_are_ranked_by_their_logits(reranker: httpx.AsyncClient, path: str, top_n: int | None) -> None:
    answer = await answer_to(reranker, path, query=QUERY, documents=WORDS, top_n=top_n)
    results = [(result["index"], result["relevance_score"]) for result in answer["results"]]
    assert results == [(index, 1.0) for index in BEST_FIRST[:top_n]]


async def test_labels_are_ranked_by_their_logits(tmp_path: Path) -> None:
    model = write_multi_label_classifier(tmp_path / "model")
    async with http_of(tmp_path, model, HighLogits(dimension=len(EMOTIONS))) as http:
        expected = [{"score": 1.0, "label": EMOTIONS[index]} for index in (2, 0, 1)]
        assert await answer_to(http, "/predict", inputs="a") == expected
        assert await answer_to(http, "/predict", inputs=[["a"], ["b", "c"]]) == [expected, expected]
        assert await answer_to(http, "/predict", inputs="a", parameters={"top_k": 2}) == [expected[:2]]


async def test_grpc_returns_the_ranking(tmp_path: Path) -> None:
    named: dict[str, Any] = {"model": str(write_reranker(tmp_path / "model"))}
    async with (
        engine_pod(tmp_path, HighLogits(), **named) as engine,
        tokenizer_pod(tmp_path, engine, **named) as address,
        Client(address) as client,
    ):
        for raw_scores, scores in ((False, [1.0] * 6), (True, list(LOGIT_OF.values()))):
            answer = await client.rerank(pb.RerankRequest(query=QUERY, documents=WORDS, raw_scores=raw_scores))
            assert np.frombuffer(answer.ranking, "<u4").tolist() == BEST_FIRST
            assert np.frombuffer(answer.scores, "<f4").tolist() == pytest.approx(scores)


def test_without_a_ranking_scores_are_sorted_and_ties_keep_their_order() -> None:
    assert rank(b"", np.array([0.5, 1.0, 0.5, 1.0], np.float32)) == [1, 3, 0, 2]
