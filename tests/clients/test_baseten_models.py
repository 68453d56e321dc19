"""Baseten's performance client, at the base URL that Baseten documents, with real models on the torch engine.
Answers equal those of sentence-transformers and transformers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from baseten_performance_client import PerformanceClient, RequestProcessingPreference
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import pipeline

from heddle.checkpoint.model_source import PACKAGED_NAME, packaged_folder
from tests.ner_sentences import ner_sentences
from tests.small_models.ner import ner_pipeline
from tests.system.served import Served, served
from tests.texts import varied_texts

pytestmark = pytest.mark.slow

BASE = "/environments/production/sync"
TEXTS = varied_texts(150, seed=6)
# For probabilities: steep heads amplify rounding errors of float32.
TOLERANCE = 1e-4


def make_client(served: Served) -> PerformanceClient:
    return PerformanceClient(base_url=served.url + BASE, api_key="any")


@asynccontextmanager
async def serving_client(model: Path) -> AsyncIterator[PerformanceClient]:
    async with served("--dtype", "float32", "--model", str(model)) as running:
        yield make_client(running)


async def test_embed_gives_the_vectors_of_sentence_transformers(heddle: Served) -> None:
    preference = RequestProcessingPreference(batch_size=16, max_concurrent_requests=32)
    response = await make_client(heddle).async_embed(input=TEXTS, model=PACKAGED_NAME, preference=preference)
    reference = SentenceTransformer(str(packaged_folder()), device="cpu")
    expected = np.asarray(reference.encode(TEXTS, normalize_embeddings=True))
    assert (response.numpy() * expected).sum(axis=1).min() > 0.99999
    assert [item.index for item in response.data] == list(range(len(TEXTS)))


async def test_rerank_gives_the_scores_of_the_cross_encoder_best_first(reranker_folder: Path) -> None:
    query = "how do I reset my password?"
    expected = CrossEncoder(str(reranker_folder), device="cpu").predict([(query, text) for text in TEXTS])
    async with serving_client(reranker_folder) as client:
        whole = await client.async_rerank(query=query, texts=TEXTS, truncate=True, return_text=True)
    assert sorted(item.index for item in whole.data) == list(range(len(TEXTS)))
    assert all(item.text == TEXTS[item.index] for item in whole.data)
    found = [item.score for item in sorted(whole.data, key=lambda item: item.index)]
    assert found == pytest.approx(expected.tolist(), abs=TOLERANCE)


async def test_classify_gives_the_labels_of_the_transformers_pipeline(sentiment_folder: Path) -> None:
    classify = pipeline("text-classification", model=str(sentiment_folder), top_k=None, device="cpu")
    expected: Any = classify(TEXTS, truncation=True)
    async with serving_client(sentiment_folder) as client:
        found = await client.async_classify(inputs=TEXTS, truncate=True)
    for predictions, wanted in zip(found.data, expected, strict=True):
        assert predictions[0].label == wanted[0]["label"]
        scores = {item["label"]: item["score"] for item in wanted}
        assert {one.label: one.score for one in predictions} == pytest.approx(scores, abs=TOLERANCE)


async def test_batch_post_gives_the_entities_of_the_transformers_pipeline(ner_folder: Path) -> None:
    sentences = ner_sentences(60)
    expected: Any = await asyncio.to_thread(ner_pipeline(ner_folder, "max"), sentences)
    async with serving_client(ner_folder) as client:
        payloads = [{"inputs": [[text]], "aggregation_strategy": "max"} for text in sentences]
        found = await client.async_batch_post(url_path="/predict_tokens", payloads=payloads)
    for (spans,), wanted in zip(found.data, expected, strict=True):
        assert [(span["start"], span["end"], list(span["results"])) for span in spans] == [
            (span["start"], span["end"], [span["entity_group"]]) for span in wanted
        ]
