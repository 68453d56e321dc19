"""POST /pooling: each of vLLM's tasks returns the numbers of the route for that task."""

import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.cluster import gateway
from tests.http_gateway.calls import answer_to
from tests.kinds import EMOTIONS, TAGS, http_of, write_classifier, write_multi_vector_embedder, write_token_classifier

TEXTS = ["hello", "hello world"]


def arrays_of(answer: dict[str, Any]) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    assert answer["object"] == "list"
    assert [(item["index"], item["object"]) for item in answer["data"]] == [(0, "pooling"), (1, "pooling")]
    return [np.array(item["data"], np.float32) for item in answer["data"]]


@pytest.mark.parametrize("more", [{}, {"task": "embed"}, {"task": "embed", "dimensions": 16}])
async def test_an_embedder_embeds_texts(http: httpx.AsyncClient, more: dict[str, Any]) -> None:
    answer = await answer_to(http, "/pooling", input=TEXTS, **more)
    dimensions = more.get("dimensions")
    expected = await answer_to(http, "/embed", inputs=TEXTS, dimensions=dimensions)
    assert np.array_equal(arrays_of(answer), np.array(expected, np.float32))
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    raw = await answer_to(http, "/pooling", input=TEXTS, use_activation=False, **more)
    expected = await answer_to(http, "/embed", inputs=TEXTS, dimensions=dimensions, normalize=False)
    assert np.array_equal(arrays_of(raw), np.array(expected, np.float32))


async def test_an_embedder_embeds_tokens(http: httpx.AsyncClient) -> None:
    expected = [np.array(rows, np.float32) for rows in await answer_to(http, "/embed_all", inputs=TEXTS)]
    raw = arrays_of(await answer_to(http, "/pooling", input=TEXTS, task="token_embed", use_activation=False))
    for found, rows in zip(raw, expected, strict=True):
        assert np.array_equal(found, rows)
    unit = arrays_of(await answer_to(http, "/pooling", input=TEXTS, task="token_embed"))
    for found, rows in zip(unit, expected, strict=True):
        assert np.allclose(found, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("task", ["embed", "token_embed"])
async def test_base64_is_the_same_floats(http: httpx.AsyncClient, task: str) -> None:
    floats = arrays_of(await answer_to(http, "/pooling", input=TEXTS, task=task))
    form = {"encoding_format": "base64", "embed_dtype": "float32", "endianness": "little"}
    encoded = (await answer_to(http, "/pooling", input=TEXTS, task=task, **form))["data"]
    for item, expected in zip(encoded, floats, strict=True):
        assert base64.b64decode(item["data"]) == expected.astype("<f4").tobytes()


async def test_a_multi_vector_embedder_embeds_tokens_by_default(tmp_path: Path) -> None:
    async with http_of(tmp_path, write_multi_vector_embedder(tmp_path / "model")) as http:
        found = arrays_of(await answer_to(http, "/pooling", input=TEXTS))
        for array, rows in zip(found, await answer_to(http, "/embed_all", inputs=TEXTS), strict=True):
            expected = np.array(rows, np.float32)
            assert np.allclose(array, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
        refused = await http.post("/pooling", json={"input": TEXTS, "use_activation": False})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "use_activation")


async def test_a_classifier_classifies_texts_by_default(tmp_path: Path) -> None:
    async with http_of(tmp_path, write_classifier(tmp_path / "model")) as http:
        for more, raw in (({}, False), ({"task": "classify", "use_activation": False}, True)):
            found = arrays_of(await answer_to(http, "/pooling", input=TEXTS, **more))
            expected = await answer_to(http, "/predict", inputs=[[text] for text in TEXTS], raw_scores=raw)
            for array, best in zip(found, expected, strict=True):
                scores = {each["label"]: each["score"] for each in best}
                assert np.array_equal(array, np.array([scores[label] for label in EMOTIONS], np.float32))
        refused = await http.post("/pooling", json={"input": [[101, 102]]})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")


async def test_a_token_classifier_classifies_tokens_by_default(tmp_path: Path) -> None:
    async with http_of(tmp_path, write_token_classifier(tmp_path / "model")) as http:
        raw = arrays_of(await answer_to(http, "/pooling", input=TEXTS, use_activation=False))
        for array, tokens in zip(
            raw, await answer_to(http, "/predict_tokens", inputs=TEXTS, raw_scores=True), strict=True
        ):
            assert np.array_equal(
                array, np.array([[token["results"][tag] for tag in TAGS] for token in tokens], np.float32)
            )
        probabilities = arrays_of(await answer_to(http, "/pooling", input=TEXTS))
        for array, tokens in zip(probabilities, await answer_to(http, "/predict_tokens", inputs=TEXTS), strict=True):
            best = [next(iter(token["results"].items())) for token in tokens]
            assert [TAGS[index] for index in array.argmax(axis=1)] == [label for label, _ in best]
            assert np.allclose(array.max(axis=1), [score for _, score in best], atol=1e-6)


async def test_refusals_name_the_parameter(http: httpx.AsyncClient) -> None:
    cases: list[tuple[dict[str, Any], int, str | None]] = [
        ({"input": "a", "task": "classify"}, 424, None),
        ({"input": "a", "task": "plugin"}, 400, "task"),
        ({"input": "a", "task": "token_embed", "dimensions": 4}, 400, "dimensions"),
        ({"input": "a", "dimensions": 1000}, 400, "dimensions"),
        ({"input": "a", "encoding_format": "bytes"}, 400, "encoding_format"),
        ({"input": "a", "embed_dtype": "float16"}, 400, "embed_dtype"),
        ({"input": "a", "endianness": "big"}, 400, "endianness"),
        ({"input": ["a", ""]}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"messages": []}, 400, "input"),
        ({"input": [101, 102]}, 400, "input"),
    ]
    for body, status, param in cases:
        response = await http.post("/pooling", json=body)
        assert (response.status_code, response.json()["error"]["param"]) == (status, param), response.text


async def test_token_ids_are_accepted_if_trusted(tokenizer: str) -> None:
    async with gateway(tokenizer, trust_token_ids=True) as url, httpx.AsyncClient(base_url=url) as http:
        ids = [token["id"] for token in (await answer_to(http, "/tokenize", inputs=TEXTS[0]))[0]]
        for task in ("embed", "token_embed"):
            of_ids = await answer_to(http, "/pooling", input=[ids], task=task)
            assert of_ids["data"] == (await answer_to(http, "/pooling", input=TEXTS[0], task=task))["data"]
