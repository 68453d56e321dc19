"""Reranking with an embedder over HTTP gives the cosines of sentence-transformers with the same weights and prompts."""

import json
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from engine_svc.backends.torch_backend import TorchBackend
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import PACKAGED_NAME, locate
from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.http_gateway.calls import answer_to
from tests.texts import varied_texts

pytestmark = pytest.mark.slow

QUERY = "What is a loom?"
DOCUMENTS = [*varied_texts(20, seed=5), "A loom weaves cloth.", ""]
PROMPTS = {"query": "query: ", "document": "passage: "}


def model_with_prompts(folder: Path) -> Path:
    shutil.copytree(locate(PACKAGED_NAME, None, with_weights=True), folder)
    path = folder / "config_sentence_transformers.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**config, "prompts": PROMPTS}))
    return folder


async def test_rerank_and_score_are_the_cosines_of_sentence_transformers(tmp_path: Path) -> None:
    model = model_with_prompts(tmp_path / "model")
    reference = SentenceTransformer(str(model), device="cpu")
    query, documents = reference.encode_query([QUERY]), reference.encode_document(DOCUMENTS)
    expected = reference.similarity(query, documents)[0].numpy()
    named = {"model": str(model), "served_model_name": "served"}
    backend = TorchBackend(Checkpoint.read(model), dtype="float32")
    async with (
        engine_pod(tmp_path, backend, **named) as engine,
        tokenizer_pod(tmp_path, engine, **named, rerank_by_cosine=True) as tokenizer,
        gateway(tokenizer) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        ranks = await answer_to(http, "/rerank", query=QUERY, texts=DOCUMENTS)
        assert [rank["score"] for rank in ranks] == sorted((rank["score"] for rank in ranks), reverse=True)
        by_index = {rank["index"]: rank["score"] for rank in ranks}
        assert np.allclose([by_index[index] for index in range(len(DOCUMENTS))], expected, atol=1e-5)
        assert ranks[0]["index"] == DOCUMENTS.index("A loom weaves cloth.")
        answer = await answer_to(http, "/score", text_1=QUERY, text_2=DOCUMENTS)
        assert np.allclose([item["score"] for item in answer["data"]], expected, atol=1e-5)
        results = (await answer_to(http, "/v2/rerank", query=QUERY, documents=DOCUMENTS, top_n=3))["results"]
        assert [result["index"] for result in results] == [rank["index"] for rank in ranks[:3]]
