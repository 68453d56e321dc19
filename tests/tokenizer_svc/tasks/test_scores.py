"""Scores of many inputs and cosines of vectors: the same numbers in any order, for vectors of any length."""

import random
from collections.abc import Callable

import numpy as np
import pytest
from sentence_transformers.util import cos_sim

from heddle import tensors
from heddle.activations import sigmoid, softmax
from heddle.tensors import Floats
from heddle.v1 import engine_pb2, tensor_pb2
from heddle.v1 import inference_pb2 as pb
from tests.kinds import EMOTIONS, write_classifier
from tests.tokenizer_svc.tasks.conftest import Serve
from tokenizer_svc.tasks import prediction, scores
from tokenizer_svc.tasks.grouping import Group
from tokenizer_svc.tasks.scores import NUMBERS_AT_ONCE, ScoreTable, cosines, identity
from tokenizer_svc.text.sequences import TokenSequences

NONE = TokenSequences.from_results([])


@pytest.mark.parametrize("score", [softmax, sigmoid, identity])
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


async def test_a_classifier_scores_its_logits_in_parts(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(logits: Floats) -> Floats:
        sizes.append(logits.size)
        return softmax(logits)

    monkeypatch.setattr(scores, "NUMBERS_AT_ONCE", 30)
    monkeypatch.setattr(prediction, "softmax", counted)
    client = await serve(write_classifier)
    answer = await client.predict(pb.PredictRequest(inputs=[pb.TextOrPair(text=f"a {n}") for n in range(100)]))
    assert len(answer.scores) == 100 * 4 * len(EMOTIONS)
    assert max(sizes) < 30 + len(EMOTIONS)


@pytest.mark.parametrize("length", [1e-20, 1.0, 1e15])
def test_cosines_are_those_of_sentence_transformers(length: float) -> None:
    rng = np.random.default_rng(2)
    one, many = rng.normal(size=384), rng.normal(size=(20, 384))
    found = cosines((one * length).astype(np.float32), (many * length).astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, cos_sim(one, many)[0].numpy(), atol=1e-6)


def test_the_cosine_with_a_zero_vector_is_zero() -> None:
    rows = np.array([[0.0, 0.0], [1.0, 0.0]], np.float32)
    np.testing.assert_array_equal(cosines(rows[1], rows), [0.0, 1.0])
    np.testing.assert_array_equal(cosines(rows[0], rows), [0.0, 0.0])


def test_the_cosine_of_a_vector_with_itself_is_exactly_one() -> None:
    rows = np.random.default_rng(3).normal(size=(200, 33)).astype(np.float32)
    assert all(cosines(row, row[None])[0] == 1.0 for row in rows)
