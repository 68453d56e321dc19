"""Turns the logits of many inputs into scores and rankings, a few at a time. The task of `Predict` fills one."""

from collections.abc import Callable

import numpy as np

from heddle import tensors
from heddle.tensors import Floats
from heddle.v1 import engine_pb2
from tokenizer_svc.tasks.grouping import Group
from tokenizer_svc.tasks.scores import Ranking, best_first

# Logits per call, which blocks the event loop for about a millisecond, most of it to rank. A call costs 50 us more, so
# several inputs are scored at once.
NUMBERS_AT_ONCE = 8_192


class ScoreTable:
    """Scores and rankings, [inputs, labels] each. Rows of logits may come in any order."""

    def __init__(self, inputs: int, labels: int, score: Callable[[Floats], Floats]) -> None:
        """`score` makes scores of logits [some inputs, labels]."""
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
            self._settle(rows_at_once)

    def to_bytes(self) -> tuple[bytes, bytes]:
        """Scores, and for each row the indices of its labels, best first. Call it once all rows have been read."""
        self._settle(len(self._unscored))
        return self._rows.astype("<f4", copy=False).tobytes(), self._rankings.tobytes()

    def _settle(self, count: int) -> None:
        rows = self._unscored[:count]
        if rows:
            logits = self._rows[rows]
            self._rankings[rows] = best_first(logits)
            self._rows[rows] = self._score(logits)
            del self._unscored[:count]


def as_they_are(logits: Floats) -> Floats:
    """The `score` of logits that are wanted themselves."""
    return logits
