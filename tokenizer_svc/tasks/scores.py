"""Turns logits into scores and rankings, and vectors into cosines. The tasks call it."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from heddle import tensors
from heddle.tensors import Floats
from heddle.v1 import engine_pb2
from tokenizer_svc.tasks.grouping import Group

Ranking = npt.NDArray[np.uint32]

# Logits per call. A call blocks the event loop for about a millisecond, most of it for ranking. It also costs a fixed
# 50 us, so several inputs are scored at once.
NUMBERS_AT_ONCE = 8_192


def best_first(logits: Floats) -> Ranking:
    """Sorts indices along the last axis by descending logit; equal logits keep their order. Sorts logits instead of
    scores because many logits round to the same score: in float32 the sigmoid is 1.0 from about 17 on."""
    ranking: Ranking = np.argsort(-logits, axis=-1, kind="stable").astype("<u4")
    return ranking


def cosines(one: Floats, many: Floats) -> Floats:
    """Cosines of [dimension] and each row of [rows, dimension]: float32 [rows]; 0 for a zero vector."""
    source, rows = one.astype(np.float64), many.astype(np.float64)
    lengths = np.linalg.norm(source) * np.linalg.norm(rows, axis=-1)
    products = rows @ source
    cosine = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    scores: Floats = cosine.clip(-1.0, 1.0).astype(np.float32)
    return scores


class ScoreTable:
    """Scores and rankings, [inputs, labels] each. Rows of logits may come in any order."""

    def __init__(self, inputs: int, labels: int, score: Callable[[Floats], Floats]) -> None:
        """`score` turns logits [some inputs, labels] into scores."""
        self._rows: Floats = np.empty((inputs, labels), np.float32)
        self._rankings: Ranking = np.empty((inputs, labels), "<u4")
        self._score = score
        self._unscored: list[int] = []

    def read(self, group: Group, outcome: engine_pb2.Outcome) -> None:
        """The `read` of a plan."""
        logits = tensors.from_proto(outcome.results[0].tensor)
        self._rows[group.start : group.start + len(logits)] = logits
        self._unscored.extend(range(group.start, group.start + len(logits)))
        rows_at_once = max(NUMBERS_AT_ONCE // self._rows.shape[1], 1)
        while len(self._unscored) >= rows_at_once:
            self._score_rows(rows_at_once)

    def to_bytes(self) -> tuple[bytes, bytes]:
        """Returns the scores and, for each row, the labels' indices, best first. Called after all rows were read."""
        self._score_rows(len(self._unscored))
        return self._rows.astype("<f4", copy=False).tobytes(), self._rankings.tobytes()

    def _score_rows(self, count: int) -> None:
        rows = self._unscored[:count]
        if rows:
            logits = self._rows[rows]
            self._rankings[rows] = best_first(logits)
            self._rows[rows] = self._score(logits)
            del self._unscored[:count]


def identity(logits: Floats) -> Floats:
    """The `score` of requests for logits."""
    return logits
