"""`heddle serve` with the seed's configurations, as they stand, answers the seed's requests as transformers and
sentence-transformers do. A local hub has small checkpoints under the same names."""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import pipeline

from tests.heddle.config.configs import EXAMPLES, SEED
from tests.hub import Hub
from tests.small_models.ner import LABELS, ner_pipeline
from tests.system.served import served
from tests.system.stand_ins import LANGUAGES, STAND_INS
from tests.texts import SENTENCES as TEXTS

pytestmark = pytest.mark.slow

NER_MODEL = "baseten-admin/bert-base-ner-uncased"
PRIVATE_MODEL, TOKEN = "model-repo-name", "hf_secret"

# The paths of the seed and of Baseten for the default route.
DEFAULT_PATHS = ("/", "/environments/production/predict")
SENTENCES = ["Baseten Embeddings are fast.", "Embed this sentence!"]
EXAMPLE = "Apple is looking at buying U.K. startup for $1 billion"
TOLERANCE = 1e-4
# Vectors and scores with fp8 weights, compared with float32.
QUANTIZED_COSINE_MIN = 0.99
QUANTIZED_CORRELATION_MIN = 0.95


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, ner_folder: Path) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    repositories = {name: folder / name.replace("/", "--") for name in STAND_INS}
    for name, write in STAND_INS.items():
        write(repositories[name])
    tokens = {TOKEN: [PRIVATE_MODEL]}
    with Hub({**repositories, NER_MODEL: ner_folder}, tokens=tokens, private=[PRIVATE_MODEL]) as running:
        yield running


class Requests:
    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def post(self, path: str, **body: Any) -> Any:
        response = await self._http.post(path, json=body)
        assert response.status_code == 200, (path, response.text)
        return response.json()

    async def post_by_default(self, route: str, **body: Any) -> Any:
        """Checks that the default route answers as `route` does, and returns the answer."""
        answer = await self.post(f"/environments/production/sync{route}", **body)
        for path in DEFAULT_PATHS:
            assert await self.post(path, **body) == answer
        return answer


@asynccontextmanager
async def serving(hub: Hub, path: Path, **secrets: str) -> AsyncIterator[Requests]:
    async with (
        served(str(path), "--dtype", "float32", **hub.environ, **secrets) as heddle,
        httpx.AsyncClient(base_url=heddle.url, timeout=30) as http,
    ):
        yield Requests(http)


def expected_vectors(hub: Hub, name: str, texts: list[str]) -> Any:
    return SentenceTransformer(str(hub.folders[name]["main"]), device="cpu").encode(texts)


def vectors_of(answer: Any) -> Any:
    return np.array([item["embedding"] for item in answer["data"]])


async def test_embedding(hub: Hub) -> None:
    async with serving(hub, SEED / "embedding.yaml") as requests:
        answer = await requests.post_by_default("/v1/embeddings", input=SENTENCES, model="not-required")
    expected = expected_vectors(hub, "BAAI/bge-large-en-v1.5", SENTENCES)
    assert np.abs(vectors_of(answer) - expected).max() < TOLERANCE
    assert answer["model"] == "BAAI/bge-large-en-v1.5"


async def test_reranking(hub: Hub) -> None:
    query, texts = "how do I reset my password?", ["Click on Settings.", *SENTENCES, "הסיסמה"]
    async with serving(hub, SEED / "reranking.yaml") as requests:
        ranks = await requests.post_by_default("/rerank", query=query, texts=texts)
        predictions = await requests.post("/predict", inputs=[[query, text] for text in texts])
    reranker = CrossEncoder(str(hub.folders["BAAI/bge-reranker-v2-m3"]["main"]), device="cpu")
    expected = reranker.predict([(query, text) for text in texts])
    assert [rank["index"] for rank in ranks] == list(np.argsort(-expected))
    assert [rank["score"] for rank in ranks] == pytest.approx(sorted(expected, reverse=True), abs=TOLERANCE)
    assert [scores[0]["score"] for scores in predictions] == pytest.approx(list(expected), abs=TOLERANCE)


async def test_classification(hub: Hub) -> None:
    texts = ["Où se trouve la gare ?", "What is deep learning?"]
    async with serving(hub, SEED / "classification.yaml") as requests:
        answer = await requests.post_by_default("/predict", inputs=[[text] for text in texts])
    folder = hub.folders["papluca/xlm-roberta-base-language-detection"]["main"]
    classify = pipeline("text-classification", model=str(folder), top_k=None, device="cpu")
    expected: Any = classify(texts)
    for found, scores in zip(answer, expected, strict=True):
        by_label = {item["label"]: item["score"] for item in scores}
        assert set(by_label) == set(LANGUAGES)
        assert {item["label"]: item["score"] for item in found} == pytest.approx(by_label, abs=TOLERANCE)


async def test_entities(hub: Hub, ner_folder: Path, tmp_path: Path) -> None:
    """Sends the seed's request, and gets both forms of answers that the seed shows. The config is in a Truss folder."""
    shutil.copy(SEED / "entities.yaml", tmp_path / "config.yaml")
    body = {"inputs": [[EXAMPLE]], "truncate": True, "raw_scores": False, "aggregation_strategy": "max"}
    async with serving(hub, tmp_path) as requests:
        [entities] = await requests.post_by_default("/predict_tokens", **body)
        [tokens] = await requests.post("/predict_tokens", **body | {"aggregation_strategy": "none", "raw_scores": True})
    expected: Any = ner_pipeline(ner_folder, "max")([EXAMPLE])
    assert [(found["token"], found["start"], found["end"], list(found["results"])) for found in entities] == [
        (EXAMPLE[span["start"] : span["end"]], span["start"], span["end"], [span["entity_group"]])
        for span in expected[0]
    ]
    assert list(entities[0]) == ["token", "token_id", "start", "end", "results"]
    assert {found["token"]: found["token_id"] for found in entities} == {"Apple": 0, "U.K.": 0}
    apple = tokens[1]
    assert (apple["token"], apple["start"], apple["end"]) == ("Apple", 0, 5)
    assert apple["token_id"] > 0
    assert set(apple["results"]) == set(LABELS)


async def test_quantized_embedding_of_a_private_repository(hub: Hub) -> None:
    """Sets the key options of the seed. Its secret opens the repository, and fp8 changes the vectors a little."""
    async with serving(hub, SEED / "key_options.yaml", TRUSS_SECRET_hf_access_token=TOKEN) as requests:
        answer = await requests.post_by_default("/v1/embeddings", input=SENTENCES)
    vectors, expected = vectors_of(answer), expected_vectors(hub, PRIVATE_MODEL, SENTENCES)
    assert (vectors * expected).sum(axis=1).min() > QUANTIZED_COSINE_MIN
    assert np.abs(vectors - expected).max() > TOLERANCE


async def test_quantized_reranking_by_classification(hub: Hub) -> None:
    """Sends texts that the caller has formatted one by one, as Baseten requires for such a reranker."""
    texts = ["Baseten is a fast inference provider", "Classify this separately.", *TEXTS]
    body = {"inputs": [[text] for text in texts], "raw_scores": True, "truncate": True, "truncation_direction": "Right"}
    async with serving(hub, EXAMPLES / "qwen3_reranker.yaml") as requests:
        answer = await requests.post_by_default("/predict", **body)
    folder = hub.folders["michaelfeil/Qwen3-Reranker-8B-seq"]["main"]
    score = pipeline("text-classification", model=str(folder), function_to_apply="none", device="cpu")
    expected: Any = [score(text)[0]["score"] for text in texts]
    assert [[item["label"] for item in scores] for scores in answer] == [["LABEL_0"]] * len(texts)
    found = [scores[0]["score"] for scores in answer]
    assert np.corrcoef(found, expected)[0, 1] > QUANTIZED_CORRELATION_MIN
    assert found != pytest.approx(expected, abs=TOLERANCE)
