"""POST /v2/embed: Cohere's shape, every data type, prompts by input type."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from heddle.model_source import PACKAGED_NAME, locate
from tests.http_gateway.calls import answer_to
from tests.kinds import http_of

PATH = "/v2/embed"
TEXTS = ["hello", "hello world"]


async def test_the_answer_has_coheres_shape(http: httpx.AsyncClient) -> None:
    answer = await answer_to(http, PATH, texts=TEXTS, model="m", input_type="search_query", embedding_types=["float"])
    assert answer["texts"] == TEXTS
    assert answer["response_type"] == "embeddings_by_type"
    assert answer["meta"]["billed_units"] == {"input_tokens": 7}
    assert answer["id"]
    assert answer["embeddings"]["float"] == await answer_to(http, "/embed", inputs=TEXTS)


async def test_every_data_type_is_of_the_same_vectors(http: httpx.AsyncClient) -> None:
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    rows = (await answer_to(http, PATH, texts=TEXTS, embedding_types=types))["embeddings"]
    vectors = np.array(rows["float"], np.float32)
    assert b"".join(map(base64.b64decode, rows["base64"])) == vectors.tobytes()
    assert np.array_equal(np.array(rows["int8"]), np.rint(vectors * 127))
    assert np.array_equal(np.array(rows["uint8"]), np.rint(vectors * 127) + 128)
    assert np.array_equal(np.array(rows["ubinary"]), np.packbits(vectors > 0, axis=1))
    assert np.array_equal(np.array(rows["binary"]), np.packbits(vectors > 0, axis=1).astype(int) - 128)


async def test_contents_of_an_input_are_one_text(http: httpx.AsyncClient) -> None:
    content = [{"type": "text", "text": "hello"}, {"text": "world"}]
    answer = await answer_to(http, PATH, inputs=[{"content": content}])
    assert answer["texts"] == ["hello\nworld"]
    assert answer["embeddings"]["float"] == await answer_to(http, "/embed", inputs="hello\nworld")


async def test_the_input_type_chooses_the_prompt_that_the_model_has_for_it(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(locate(PACKAGED_NAME, None), model)
    prompts = {"query": "query: ", "passage": "passage: "}
    (model / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    async with http_of(tmp_path, model) as http:

        async def vector(**body: Any) -> Any:
            return (await answer_to(http, PATH, **body))["embeddings"]["float"]

        assert await vector(texts=["a"], input_type="search_query") == await vector(texts=["query: a"])
        assert await vector(texts=["a"], input_type="search_document") == await vector(texts=["passage: a"])
        assert await vector(texts=["a"], input_type="clustering") == await vector(texts=["a"])
        assert await vector(texts=["a"], input_type="passage") == await vector(texts=["passage: a"])
        assert await vector(texts=["a"], input_type="image") == await vector(texts=["a"])
        refused = await http.post(PATH, json={"texts": ["a"], "input_type": "querry"})
        assert refused.status_code == 400
        possible = "search_query, search_document, classification, clustering, image, passage, query"
        assert refused.json()["message"] == f"input_type: there is no 'querry', it is one of {possible}"


async def test_truncate_says_which_end_is_lost(http: httpx.AsyncClient) -> None:
    text = "first " * 400 + "last " * 400
    for side, kept in (("END", "first " * 254), ("START", "last " * 254)):
        answer = await answer_to(http, PATH, texts=[text], truncate=side)
        assert answer["embeddings"]["float"] == await answer_to(http, "/embed", inputs=[kept])
    refused = await http.post(PATH, json={"texts": [text], "truncate": "NONE"})
    assert refused.status_code == 400
    assert refused.json()["message"] == "texts[0]: the input has 802 tokens, the limit is 256 tokens"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "texts or inputs"),
        ({"texts": ["a"], "inputs": []}, "texts or inputs"),
        ({"texts": []}, "texts is empty: a request needs at least one"),
        ({"inputs": []}, "inputs is empty"),
        ({"texts": ["a", ""]}, "texts[1]"),
        ({"texts": ["a"], "embedding_types": ["int4"]}, "embedding_types"),
        ({"texts": ["a"], "output_dimension": 385}, "384"),
        ({"inputs": [{"content": [{"type": "image_url", "image_url": {}}]}]}, "'image_url', it is text"),
    ],
)
async def test_refusals_are_told_as_cohere_tells_them(
    http: httpx.AsyncClient, body: dict[str, object], words: str
) -> None:
    response = await http.post(PATH, json=body)
    assert response.status_code == 400
    assert set(response.json()) == {"message", "detail"}
    assert words in response.json()["message"]
