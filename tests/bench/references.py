"""The answers of sentence-transformers in float32, and whether a server's answer is close enough. `turns` uses them.

A server that gives one wrong answer is excluded with all its figures.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heddle.checkpoint.model_source import packaged_folder
from tests.bench.dialect import Vectors, scores_of, vectors_of
from tests.bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# bfloat16 has eight bits of mantissa.
COSINE_MIN = 0.99
# Of logits: between 0 and 1, bfloat16 moves a score by as much as a tenth without changing what ranks before what.
CORRELATION_MIN = 0.98


class WrongAnswerError(Exception):
    pass


class References:
    """References by workload and index of the request. Each is computed when it is first needed."""

    def __init__(self, reranker: Path) -> None:
        self._reranker = reranker
        self._known: dict[str, dict[int, Vectors]] = {}

    def of(self, workload: str) -> dict[int, Vectors]:
        if workload not in self._known:
            self._known[workload] = self._scores(workload) if workload == "rerank" else self._vectors(workload)
        return self._known[workload]

    def check(self, workload: str, answers: dict[int, str], who: str) -> int:
        """Raises WrongAnswerError. Returns how many answers were compared."""
        expected = self.of(workload)
        for index, answer in answers.items():
            if workload == "rerank":
                check_scores(scores_of(answer), expected[index], who)
            else:
                check_vectors(vectors_of(answer), expected[index], who)
        return len(answers)

    def _vectors(self, workload: str) -> dict[int, Vectors]:
        requests = WORKLOADS[workload].requests
        indices = WORKLOADS[workload].checked
        texts = [text for index in indices for text in requests[index].texts]
        vectors = embedder().encode(texts, normalize_embeddings=True, batch_size=32)
        ends = np.cumsum([len(requests[index].texts) for index in indices])
        return dict(zip(indices, np.split(vectors, ends[:-1]), strict=True))

    def _scores(self, workload: str) -> dict[int, Vectors]:
        from sentence_transformers import CrossEncoder

        model = CrossEncoder(str(self._reranker), device="cpu")
        requests = WORKLOADS[workload].requests
        checked = {index: requests[index] for index in WORKLOADS[workload].checked}
        return {index: model.predict([(one.query, text) for text in one.texts]) for index, one in checked.items()}


@cache
def embedder() -> "SentenceTransformer":
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(packaged_folder()), device="cpu")


def check_vectors(vectors: Vectors, expected: Vectors, who: str) -> None:
    if vectors.shape != expected.shape:
        raise WrongAnswerError(f"{who}: {vectors.shape} numbers where {expected.shape} were expected")
    cosines = (vectors * expected).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
    if not cosines.min() >= COSINE_MIN:
        raise WrongAnswerError(f"{who}: a wrong vector, cosine {cosines.min():.4f}")


def check_scores(scores: Vectors, expected: Vectors, who: str) -> None:
    if scores.shape != expected.shape:
        raise WrongAnswerError(f"{who}: {scores.shape} scores where {expected.shape} were expected")
    correlation = float(np.corrcoef(logits(scores), logits(expected))[0, 1])
    if not correlation >= CORRELATION_MIN:
        raise WrongAnswerError(f"{who}: wrong scores, correlation {correlation:.4f}")


def logits(scores: Vectors) -> Vectors:
    """Converts scores to logits, within the range where float32 tells a score from 0 and 1."""
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)), np.float32)
