"""Cohere's routes except reranking: its shapes, every data type, prompts by input type, and its tools."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from tests.cluster import gateway
from tests.http_gateway.calls import answer_to

PATH = "/v2/embed"
TEXTS = ["hello", "hello world"]


async def test_the_answer_has_coheres_shape(http: httpx.AsyncClient) -> None:
    answer = await answer_to(http, PATH, texts=TEXTS, model="m", input_type="search_query", embedding_types=["float"])
    assert answer["texts"] == TEXTS
    assert answer["response_type"] == "embeddings_by_type"
    assert answer["meta"]["billed_units"] == {"input_tokens": 7}
    assert answer["meta"]["tokens"] == {"input_tokens": 7, "output_tokens": 0}
    assert answer["id"]
    assert answer["embeddings"]["float"] == await answer_to(http, "/embed", inputs=TEXTS)


async def test_version_1_gives_one_list_of_vectors_unless_types_are_requested(http: httpx.AsyncClient) -> None:
    answer = await answer_to(http, "/v1/embed", texts=TEXTS, model="m", input_type="search_query", truncate="END")
    assert answer["response_type"] == "embeddings_floats"
    assert answer["embeddings"] == await answer_to(http, "/embed", inputs=TEXTS)
    assert answer["texts"] == TEXTS
    assert answer["meta"] == {
        "api_version": {"version": "1"},
        "billed_units": {"input_tokens": 7},
        "tokens": {"input_tokens": 7, "output_tokens": 0},
    }
    both = await answer_to(http, "/v1/embed", texts=TEXTS, embedding_types=["float", "int8"])
    assert both["response_type"] == "embeddings_by_type"
    assert set(both["embeddings"]) == {"float", "int8"}
    assert both["embeddings"]["float"] == answer["embeddings"]


async def test_version_1_has_the_fields_of_version_2_too(http: httpx.AsyncClient) -> None:
    wish = {"texts": ["one two three"], "max_tokens": 4, "output_dimension": 8}
    expected = await answer_to(http, PATH, **wish)
    assert (await answer_to(http, "/v1/embed", **wish))["embeddings"] == expected["embeddings"]["float"]
    assert len(expected["embeddings"]["float"][0]) == 8


async def test_version_1_takes_no_images(http: httpx.AsyncClient) -> None:
    refused = await http.post("/v1/embed", json={"texts": ["a"], "images": ["data:image/png;base64,AA"]})
    assert refused.status_code == 400
    assert refused.json()["message"] == "images must be [], or absent: only texts are embedded"
    assert (await http.post("/v1/embed", json={"images": ["data:"]})).json()["message"] == "texts is required"


async def test_max_tokens_cuts_each_text_as_truncate_says(http: httpx.AsyncClient) -> None:
    async def floats(text: str, **wish: Any) -> Any:
        return (await answer_to(http, PATH, texts=[text], **wish))["embeddings"]["float"]

    assert await floats("one two three", max_tokens=4) == await floats("one two")
    assert await floats("one two three", max_tokens=4, truncate="START") == await floats("two three")
    refused = await http.post(PATH, json={"texts": ["one two three"], "max_tokens": 4, "truncate": "NONE"})
    assert refused.json()["message"] == "texts[0]: the input has 5 tokens, the limit is 4 tokens"
    refused = await http.post(PATH, json={"texts": ["one two three"], "max_tokens": 2})
    assert refused.status_code == 400
    assert "2 special tokens" in refused.json()["message"]


async def test_every_data_type_holds_the_same_vectors(http: httpx.AsyncClient) -> None:
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


async def test_the_input_type_chooses_the_prompt_that_the_model_has_for_it(prompted: httpx.AsyncClient) -> None:
    async def vector(**body: Any) -> Any:
        return (await answer_to(prompted, PATH, **body))["embeddings"]["float"]

    assert await vector(texts=["a"], input_type="search_query") == await vector(texts=["query: a"])
    assert await vector(texts=["a"], input_type="search_document") == await vector(texts=["passage: a"])
    assert await vector(texts=["a"], input_type="clustering") == await vector(texts=["a"])
    assert await vector(texts=["a"], input_type="passage") == await vector(texts=["passage: a"])
    assert await vector(texts=["a"], input_type="document") == await vector(texts=["passage: a"])
    assert await vector(texts=["a"], input_type="image") == await vector(texts=["a"])
    refused = await prompted.post(PATH, json={"texts": ["a"], "input_type": "querry"})
    assert refused.status_code == 400
    possible = "search_query, search_document, classification, clustering, image, query, document, passage"
    assert refused.json()["message"] == f"input_type must be one of {possible}, not 'querry'"


async def test_truncate_names_the_side_that_is_cut(http: httpx.AsyncClient) -> None:
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
async def test_refusals_have_coheres_shape(http: httpx.AsyncClient, body: dict[str, object], words: str) -> None:
    response = await http.post(PATH, json=body)
    assert response.status_code == 400
    assert set(response.json()) == {"message", "detail"}
    assert words in response.json()["message"]


async def test_tokenize_returns_no_special_tokens(http: httpx.AsyncClient) -> None:
    answer = await answer_to(http, "/v1/tokenize", text="hello embeddings", model="m")
    ((*expected,),) = await answer_to(http, "/tokenize", inputs="hello embeddings", add_special_tokens=False)
    assert answer["tokens"] == [token["id"] for token in expected]
    assert answer["token_strings"] == [token["text"] for token in expected]
    assert answer["meta"] == {"api_version": {"version": "1"}}
    back = await answer_to(http, "/v1/detokenize", tokens=answer["tokens"], model="m")
    assert back["text"] == "hello embeddings"


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/tokenize", {}, "text is required"),
        ("/v1/detokenize", {}, "tokens is required"),
        ("/v1/detokenize", {"tokens": [-1]}, "tokens: token ids must be from 0"),
        ("/v1/detokenize", {"tokens": [10**6]}, "tokens: token id 1000000 is outside the model's vocabulary"),
    ],
)
async def test_refusals_name_the_field(http: httpx.AsyncClient, path: str, body: dict[str, object], words: str) -> None:
    response = await http.post(path, json=body)
    assert response.status_code == 400
    assert response.json()["message"].startswith(words)


async def test_check_api_key_answers_true_or_401(tokenizer: str) -> None:
    async with gateway(tokenizer, api_keys=("right",)) as url, httpx.AsyncClient(base_url=url) as http:
        response = await http.post("/v1/check-api-key", headers={"authorization": "Bearer right"})
        assert response.json() == {"valid": True}
        assert (await http.post("/v1/check-api-key", headers={"authorization": "Bearer wrong"})).status_code == 401
