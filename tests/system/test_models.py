"""Real models of every kind, from HTTP to the torch engine and back, give the results of transformers and
sentence-transformers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sentence_transformers import CrossEncoder, SparseEncoder
from transformers import pipeline

from engine_svc.backends.torch_backend import TorchBackend
from heddle.checkpoint import Checkpoint
from tests.http_gateway.calls import answer_to
from tests.kinds import http_of
from tests.ner_sentences import ner_sentences
from tests.small_models.ner import ner_pipeline
from tests.texts import varied_texts

pytestmark = pytest.mark.slow

EXAMPLE = "Apple is looking at buying U.K. startup for $1 billion"
# Of probabilities, which steep heads make of rounding errors in float32.
TOLERANCE = 1e-4


@asynccontextmanager
async def serving(folder: Path, model: Path) -> AsyncIterator[httpx.AsyncClient]:
    backend = TorchBackend(Checkpoint.read(model), dtype="float32")
    async with http_of(folder, model, backend) as http:
        yield http


async def test_entities_are_those_of_the_transformers_pipeline(tmp_path: Path, ner_folder: Path) -> None:
    sentences = ner_sentences(200)
    async with serving(tmp_path, ner_folder) as http:
        for strategy in ("simple", "first", "average", "max"):
            expected: Any = ner_pipeline(ner_folder, strategy)(sentences)
            found = await answer_to(http, "/predict_tokens", inputs=sentences, aggregation_strategy=strategy)
            for text, spans, pipeline_spans in zip(sentences, found, expected, strict=True):
                assert [place(span) for span in spans] == [
                    (span["start"], span["end"], [span["entity_group"]]) for span in pipeline_spans
                ], (strategy, text)
                assert scores(spans) == pytest.approx([span["score"] for span in pipeline_spans], abs=TOLERANCE)
                assert all(span["token"] == text[span["start"] : span["end"]] for span in spans)


async def test_labels_of_tokens_are_those_of_the_transformers_pipeline(tmp_path: Path, ner_folder: Path) -> None:
    sentences = ner_sentences(200)
    expected: Any = ner_pipeline(ner_folder, "none")(sentences, ignore_labels=[])
    async with serving(tmp_path, ner_folder) as http:
        found = await answer_to(http, "/predict_tokens", inputs=sentences)
        for text, tokens, pipeline_tokens in zip(sentences, found, expected, strict=True):
            inner = tokens[1:-1]
            assert [place(token) for token in inner] == [
                (token["start"], token["end"], [token["entity"]]) for token in pipeline_tokens
            ], text
            assert scores(inner) == pytest.approx([token["score"] for token in pipeline_tokens], abs=TOLERANCE)
        (named,) = await answer_to(http, "/predict_tokens", inputs=[[EXAMPLE]], aggregation_strategy="max")
        assert [(span["token"], list(span["results"])) for span in named] == [("Apple", ["ORG"]), ("U.K.", ["LOC"])]


def place(span: dict[str, Any]) -> tuple[int, int, list[str]]:
    return span["start"], span["end"], list(span["results"])


def scores(spans: list[dict[str, Any]]) -> list[float]:
    return [next(iter(span["results"].values())) for span in spans]


@pytest.mark.parametrize("kind", ["sentiment_folder", "multi_label_folder"])
async def test_scores_of_labels_are_those_of_the_transformers_pipeline(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(kind)
    texts = varied_texts(100, seed=3)
    classify = pipeline("text-classification", model=str(folder), top_k=None, device="cpu")
    expected: Any = classify(texts, truncation=True, max_length=Checkpoint.read(folder).sequence_tokens_max)
    async with serving(tmp_path, folder) as http:
        found = await answer_to(http, "/predict", inputs=[[text] for text in texts])
    for text, predictions, pipeline_predictions in zip(texts, found, expected, strict=True):
        by_label = {prediction["label"]: prediction["score"] for prediction in pipeline_predictions}
        assert {item["label"]: item["score"] for item in predictions} == pytest.approx(by_label, abs=TOLERANCE), text


async def test_relevance_is_that_of_the_cross_encoder(tmp_path: Path, reranker_folder: Path) -> None:
    query, texts = "how do I reset my password?", varied_texts(100, seed=4)
    expected = CrossEncoder(str(reranker_folder), device="cpu").predict([(query, text) for text in texts])
    async with serving(tmp_path, reranker_folder) as http:
        ranks = await answer_to(http, "/rerank", query=query, texts=texts)
        cohere = await answer_to(http, "/v2/rerank", query=query, documents=texts)
    assert [rank["score"] for rank in ranks] == pytest.approx(
        [expected[rank["index"]] for rank in ranks], abs=TOLERANCE
    )
    assert [result["relevance_score"] for result in cohere["results"]] == [rank["score"] for rank in ranks]


async def test_sparse_vectors_are_those_of_the_sparse_encoder(tmp_path: Path, splade_folder: Path) -> None:
    texts = varied_texts(60, seed=5)
    expected = SparseEncoder(str(splade_folder), device="cpu").encode(texts, convert_to_sparse_tensor=False)
    async with serving(tmp_path, splade_folder) as http:
        found = await answer_to(http, "/embed_sparse", inputs=texts)
    for entries, row in zip(found, np.asarray(expected), strict=True):
        dense = np.zeros_like(row)
        dense[[entry["index"] for entry in entries]] = [entry["value"] for entry in entries]
        assert np.abs(dense - row).max() < TOLERANCE
