"""POST /predict: texts, pairs and batches of both; the scores of every label."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.http_gateway.calls import answer_to, refusal_of
from tests.kinds import EMOTIONS, http_of, write_multi_label_classifier, write_reranker


async def test_one_text_gets_all_labels_the_best_first(classifier: httpx.AsyncClient) -> None:
    predictions = await answer_to(classifier, "/predict", inputs="hello")
    assert {prediction["label"] for prediction in predictions} == set(EMOTIONS)
    scores = [prediction["score"] for prediction in predictions]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-6)
    assert await answer_to(classifier, "/predict", inputs=["hello"]) == predictions


async def test_lists_of_lists_are_batches_and_two_texts_are_a_pair(classifier: httpx.AsyncClient) -> None:
    one = await answer_to(classifier, "/predict", inputs="hello")
    pair = await answer_to(classifier, "/predict", inputs=["hello", "world"])
    assert [set(prediction) for prediction in pair] == [{"score", "label"}] * 3
    assert pair != one
    batch = await answer_to(classifier, "/predict", inputs=[["hello"], ["hello", "world"], ["hello"]])
    assert batch == [one, pair, one]
    assert await answer_to(classifier, "/predict", inputs=[["hello"]]) == [one]


async def test_scores_are_the_softmax_of_the_raw_ones(classifier: httpx.AsyncClient) -> None:
    raw = {
        item["label"]: item["score"] for item in await answer_to(classifier, "/predict", inputs="a", raw_scores=True)
    }
    scores = {item["label"]: item["score"] for item in await answer_to(classifier, "/predict", inputs="a")}
    exponents = np.exp(np.array([raw[label] for label in EMOTIONS]))
    assert np.allclose([scores[label] for label in EMOTIONS], exponents / exponents.sum(), atol=1e-6)


@pytest.mark.parametrize("write", [write_multi_label_classifier, write_reranker])
async def test_independent_labels_get_the_sigmoid(tmp_path: Path, write: Any) -> None:
    async with http_of(tmp_path, write(tmp_path / "model")) as http:
        raw = {item["label"]: item["score"] for item in await answer_to(http, "/predict", inputs="a", raw_scores=True)}
        scores = {item["label"]: item["score"] for item in await answer_to(http, "/predict", inputs="a")}
        assert all(scores[label] == pytest.approx(1 / (1 + np.exp(-raw[label])), abs=1e-6) for label in raw)


async def test_hugging_faces_client_gets_a_list_of_the_requested_labels(classifier: httpx.AsyncClient) -> None:
    one = await answer_to(classifier, "/predict", inputs="hello")
    assert await answer_to(classifier, "/predict", inputs="hello", parameters={}) == [one]
    assert await answer_to(classifier, "/predict", inputs="hello", parameters={"top_k": 2}) == [one[:2]]


@pytest.mark.parametrize("activation", ["none", "sigmoid", "softmax"])
async def test_function_to_apply_selects_the_activation(classifier: httpx.AsyncClient, activation: str) -> None:
    (raw,) = await answer_to(classifier, "/predict", inputs=[["hello"]], raw_scores=True)
    wish = {"parameters": {"function_to_apply": activation}}
    (found,) = await answer_to(classifier, "/predict", inputs=[["hello"]], **wish)
    logits = np.array([item["score"] for item in raw])
    powers = np.exp(logits)
    expected = {"none": logits, "sigmoid": powers / (1 + powers), "softmax": powers / powers.sum()}[activation]
    assert [item["label"] for item in found] == [item["label"] for item in raw]
    assert np.allclose([item["score"] for item in found], expected, atol=1e-6)


async def test_raw_scores_contradict_an_activation(classifier: httpx.AsyncClient) -> None:
    body = {"inputs": "a", "raw_scores": True}
    status, _, message = await refusal_of(classifier, "/predict", **body, parameters={"function_to_apply": "softmax"})
    assert status == 400
    assert message.startswith("raw_scores and parameters.function_to_apply")
    raw = await answer_to(classifier, "/predict", **body, parameters={"function_to_apply": "none"})
    assert raw == [await answer_to(classifier, "/predict", **body)]


async def test_refusals_name_the_input(classifier: httpx.AsyncClient) -> None:
    cases: list[tuple[Any, tuple[int, str], str]] = [
        ([], (400, "Empty"), ""),
        ("", (400, "Empty"), "the text"),
        ([["a"], [""]], (400, "Empty"), "inputs[1]: "),
        ([["a"], []], (400, "Validation"), "inputs[1] must be a list of one text or a pair of texts"),
        ([["a"], ["b", "c", "d"]], (400, "Validation"), "inputs[1] must be"),
        (["a", "b", "c"], (400, "Validation"), "inputs must be a list"),
        ([["a"], "b"], (400, "Validation"), "inputs[1] must be"),
        ([[1]], (400, "Validation"), "inputs[0][0]: "),
        ([["a"]] * 2049, (413, "Validation"), "inputs holds 2049"),
    ]
    for inputs, expected, beginning in cases:
        refusal = await refusal_of(classifier, "/predict", inputs=inputs)
        assert refusal[:2] == expected, inputs
        assert refusal[2].startswith(beginning), refusal


async def test_a_label_is_found_for_every_input_of_a_long_batch(classifier: httpx.AsyncClient) -> None:
    inputs = [[f"text {number}"] for number in range(2048)]
    batch = await answer_to(classifier, "/predict", inputs=inputs)
    assert len(batch) == 2048
    assert batch[2000] == await answer_to(classifier, "/predict", inputs=inputs[2000])
