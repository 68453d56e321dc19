"""Scores are made a few at a time, of rows that come in any order: others do not wait for a large answer."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from heddle import tensors
from heddle.activations import sigmoid, softmax
from heddle.tensors import Floats
from heddle.v1 import engine_pb2, tensor_pb2
from heddle.v1 import inference_pb2 as pb
from tests.kinds import EMOTIONS, write_classifier
from tests.tokenizer_svc.tasks.conftest import Serve
from tokenizer_svc.tasks import prediction, score_table
from tokenizer_svc.tasks.grouping import Group
from tokenizer_svc.tasks.score_table import NUMBERS_AT_ONCE, ScoreTable, as_they_are
from tokenizer_svc.text.sequences import TokenSequences

NONE = TokenSequences.from_results([])


@pytest.mark.parametrize("score", [softmax, sigmoid, as_they_are])
@pytest.mark.parametrize(("inputs", "labels"), [(1, 1), (2000, 1), (300, 100), (5, 20_000)])
def test_scores_are_those_of_all_logits_at_once_in_the_order_of_the_inputs(
    inputs: int, labels: int, score: Callable[[Floats], Floats]
) -> None:
    logits = np.random.default_rng(0).normal(size=(inputs, labels)).astype(np.float32)
    sizes: list[int] = []

    def counted(some: Floats) -> Floats:
        sizes.append(some.size)
        return score(some)

    table = ScoreTable(inputs, labels, counted)
    starts = range(0, inputs, 7)
    for start in random.Random(0).sample(starts, len(starts)):
        outcome = engine_pb2.Outcome()
        tensors.fill(outcome.results.add().tensor, logits[start : start + 7], tensor_pb2.DATA_TYPE_FLOAT32)
        table.read(Group(start, NONE), outcome)
    scores, ranking = table.to_bytes()
    np.testing.assert_array_equal(np.frombuffer(scores, "<f4").reshape(inputs, labels), score(logits))
    best_first = np.argsort(-logits, axis=1, kind="stable")
    np.testing.assert_array_equal(np.frombuffer(ranking, "<u4").reshape(inputs, labels), best_first)
    assert sum(sizes) == inputs * labels
    assert max(sizes) < NUMBERS_AT_ONCE + labels


async def test_a_classifier_makes_them_so(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(logits: Floats) -> Floats:
        sizes.append(logits.size)
        return softmax(logits)

    monkeypatch.setattr(score_table, "NUMBERS_AT_ONCE", 30)
    monkeypatch.setattr(prediction, "softmax", counted)
    client = await serve(write_classifier)
    answer = await client.predict(pb.PredictRequest(inputs=[pb.TextOrPair(text=f"a {n}") for n in range(100)]))
    assert len(answer.scores) == 100 * 4 * len(EMOTIONS)
    assert max(sizes) < 30 + len(EMOTIONS)
