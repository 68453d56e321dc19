"""POST / of a token classifier: which inputs get the pipeline's shape, and which fields are refused.

tests/clients/test_huggingface.py compares the values with the pipeline's.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.http_gateway.calls import answer_to, costs_of, refusal_of
from tests.kinds import http_of, write_token_classifier

TEXT = "Zoë met 王小明 in São Paulo 🎉"


@pytest.fixture
async def tagger(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with http_of(tmp_path, write_token_classifier(tmp_path / "model")) as http:
        yield http


@pytest.mark.parametrize("path", ["/", "/invocations"])
async def test_a_text_gets_one_list_and_a_list_of_texts_one_each(tagger: httpx.AsyncClient, path: str) -> None:
    one = await answer_to(tagger, path, inputs=TEXT)
    assert one
    assert all(set(row) == {"entity_group", "score", "word", "start", "end"} for row in one)
    assert await answer_to(tagger, path, inputs=[TEXT, TEXT]) == [one, one]
    assert await answer_to(tagger, path, inputs=[TEXT]) == [one]
    tokens = await answer_to(tagger, path, inputs=TEXT, parameters={"aggregation_strategy": "none"})
    assert all(set(row) == {"entity", "score", "index", "word", "start", "end"} for row in tokens)
    assert await answer_to(tagger, path, inputs=TEXT, aggregation_strategy="none") == tokens


async def test_vertex_answers_each_instance_as_the_root_does(tagger: httpx.AsyncClient) -> None:
    bodies: list[dict[str, Any]] = [
        {"inputs": TEXT},
        {"inputs": [[TEXT]]},
        {"inputs": TEXT, "parameters": {"aggregation_strategy": "max", "ignore_labels": []}},
    ]
    expected = [await answer_to(tagger, "/", **body) for body in bodies]
    assert await answer_to(tagger, "/vertex", instances=bodies, parameters={}) == {"predictions": expected}
    shared = {"instances": bodies, "parameters": {"aggregation_strategy": "none"}}
    assert (await refusal_of(tagger, "/vertex", **shared))[2].startswith("parameters must be {}, or absent")


async def test_lists_of_lists_keep_the_shape_of_predict_tokens(tagger: httpx.AsyncClient) -> None:
    for inputs in ([[TEXT]], [[TEXT], ["b"]], [[TEXT, "b"]], [TEXT, ["b"]]):
        expected = await answer_to(tagger, "/predict_tokens", inputs=inputs, raw_scores=True)
        assert await answer_to(tagger, "/", inputs=inputs, raw_scores=True) == expected
    assert "results" in (await answer_to(tagger, "/predict_tokens", inputs=TEXT))[0][0]


async def test_ignore_labels_drops_rows_by_their_label(tagger: httpx.AsyncClient) -> None:
    every = await answer_to(tagger, "/", inputs=TEXT * 3, parameters={"ignore_labels": []})
    some = await answer_to(tagger, "/", inputs=TEXT * 3, parameters={"ignore_labels": ["PER", "O"]})
    assert {row["entity_group"] for row in every} > {"PER", "O"}
    assert some == [row for row in every if row["entity_group"] not in ("PER", "O")]


async def test_cost_headers_are_sent(tagger: httpx.AsyncClient) -> None:
    assert (await costs_of(tagger, "/", inputs=["hello", "word " * 400]))["x-truncated-inputs"] == 1


async def test_unsupported_fields_are_refused_by_name(tagger: httpx.AsyncClient) -> None:
    cases: list[tuple[dict[str, Any], tuple[int, str], str]] = [
        ({"inputs": TEXT, "raw_scores": True}, (400, "Validation"), "raw_scores: "),
        ({"inputs": "word " * 400, "parameters": {"stride": 0}}, (400, "Validation"), "parameters.stride: "),
        ({"inputs": [[TEXT]], "parameters": {"stride": 2}}, (400, "Validation"), "parameters: "),
        ({"inputs": TEXT, "parameters": {"stride": -1}}, (400, "Validation"), "parameters.stride: "),
        ({"inputs": TEXT, "parameters": {"aggregation_strategy": "best"}}, (400, "Validation"), "parameters.aggr"),
        (
            {"inputs": TEXT, "aggregation_strategy": "max", "parameters": {"aggregation_strategy": "first"}},
            (400, "Validation"),
            "aggregation_strategy and parameters.aggregation_strategy contradict",
        ),
        ({"inputs": ["a", ""]}, (400, "Empty"), "inputs[1]: "),
        ({"inputs": []}, (400, "Empty"), "inputs is empty"),
    ]
    for body, expected, beginning in cases:
        refusal = await refusal_of(tagger, "/", **body)
        assert refusal[:2] == expected, body
        assert refusal[2].startswith(beginning), refusal
