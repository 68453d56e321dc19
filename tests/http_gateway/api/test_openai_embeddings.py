"""POST /v1/embeddings, also under Azure's path: OpenAI's shape, every form of input, and a clear 4xx for wrong ones."""

import asyncio
import base64
import json
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from heddle.checkpoint.model_source import PACKAGED_NAME
from heddle.client import Client
from tests.cluster import gateway
from tests.http_gateway.calls import answer_to

PATH = "/v1/embeddings"


async def embed(http: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await http.post(PATH, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def rows(answer: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([item["embedding"] for item in answer["data"]], np.float32)


async def test_answer_has_the_shape_that_openai_defines(http: httpx.AsyncClient) -> None:
    answer = await embed(http, model=PACKAGED_NAME, input=["hello", "hello world"], user="me")
    assert answer["object"] == "list"
    assert answer["model"] == PACKAGED_NAME
    assert [(item["object"], item["index"]) for item in answer["data"]] == [("embedding", 0), ("embedding", 1)]
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


async def test_vectors_are_those_of_grpc_in_both_encodings(http: httpx.AsyncClient, tokenizer: str) -> None:
    texts = [f"text {number}" for number in range(9)]
    async with Client(tokenizer) as client:
        expected = await client.vectors(texts)
    floats = rows(await embed(http, input=texts))
    encoded = [item["embedding"] for item in (await embed(http, input=texts, encoding_format="base64"))["data"]]
    assert np.array_equal(floats, expected)
    assert b"".join(map(base64.b64decode, encoded)) == expected.tobytes()


async def test_a_string_is_a_list_of_one(http: httpx.AsyncClient) -> None:
    assert np.array_equal(rows(await embed(http, input="hello")), rows(await embed(http, input=["hello"])))


async def test_texts_may_be_objects_as_jinas_callers_send_them(http: httpx.AsyncClient) -> None:
    expected = rows(await embed(http, input=["hello", "hello world"]))
    for texts in ([{"text": "hello"}, {"text": "hello world"}], ["hello", {"text": "hello world"}]):
        assert np.array_equal(rows(await embed(http, input=texts)), expected)
    assert np.array_equal(rows(await embed(http, input={"text": "hello"})), expected[:1])


async def test_dimensions_cut_and_normalise(http: httpx.AsyncClient) -> None:
    whole, cut = rows(await embed(http, input="a")), rows(await embed(http, input="a", dimensions=16))
    assert cut.shape == (1, 16)
    assert np.allclose(cut, whole[:, :16] / np.linalg.norm(whole[:, :16]), atol=1e-6)


async def test_null_is_the_same_as_absent(http: httpx.AsyncClient) -> None:
    nulls = {"model": None, "encoding_format": None, "dimensions": None, "user": None}
    assert rows(await embed(http, input="a", **nulls)).shape == (1, 384)


async def test_unknown_fields_and_missing_content_types_are_accepted(http: httpx.AsyncClient) -> None:
    response = await http.post("/embeddings", content=b'{"input": "a", "truncate": true, "novelty": {}}')
    assert response.status_code == 200


async def test_request_longer_than_many_batches_is_one_answer(http: httpx.AsyncClient) -> None:
    texts = [f"text {number}" for number in range(2048)]
    answer = await embed(http, input=texts, encoding_format="base64")
    assert [item["index"] for item in answer["data"]] == list(range(2048))
    alone = await embed(http, input=texts[2000], encoding_format="base64")
    assert alone["data"][0]["embedding"] == answer["data"][2000]["embedding"]


async def test_word_of_a_hundred_thousand_characters_is_answered(http: httpx.AsyncClient) -> None:
    answer = await embed(http, input=["x" * 100_000, "neighbour"])
    assert answer["usage"]["prompt_tokens"] == 3 + 3  # WordPiece knows no such word


async def test_errors_name_the_place_of_a_wrong_text_in_a_list(http: httpx.AsyncClient) -> None:
    for wrong, message in (("", "the text is empty"), (["a", ""], "input[1]: the text is empty")):
        response = await http.post(PATH, json={"input": wrong})
        assert response.json()["error"]["message"] == message


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["a", 5], "input[1]: a single token id"),
        (["a", "b\ud800"], "input[1]: the text is not Unicode: it has a lone surrogate"),
    ],
)
async def test_errors_name_the_place_of_what_is_not_text(http: httpx.AsyncClient, value: list[Any], words: str) -> None:
    response = await http.post("/v1/embeddings", content=json.dumps({"input": value}))
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(words)


async def test_long_text_is_refused_if_the_request_says_so(http: httpx.AsyncClient) -> None:
    text = "first " * 400 + "last " * 400
    response = await http.post(PATH, json={"input": [text], "truncate": False})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "input[0]: the input has 802 tokens, the limit is 256 tokens"
    left = await embed(http, input=text, truncation_direction="Left")
    assert np.array_equal(rows(left), rows(await embed(http, input="last " * 254)))


async def test_trusted_token_ids_are_taken_as_they_are(tokenizer: str) -> None:
    async with gateway(tokenizer, trust_token_ids=True) as url, httpx.AsyncClient(base_url=url) as http:
        from_text = rows(await embed(http, input="hello"))
        assert np.array_equal(rows(await embed(http, input=[101, 7592, 102])), from_text)
        assert np.array_equal(rows(await embed(http, input=[[101, 7592, 102]])), from_text)
        for wrong in ([101, 30522], [[101], [30522]], [-1], [2**32], [101, "text"], [[101], []]):
            response = await http.post(PATH, json={"input": wrong})
            assert (response.status_code, response.json()["error"]["param"]) == (400, "input"), wrong


def body(**fields: Any) -> bytes:
    return json.dumps({"input": "fine", **fields}).encode()


BAD_BODIES = [
    (b"", 400, None, "empty"),
    (b"{", 400, None, "not JSON"),
    (b'{"input": "a\x00b"}', 400, None, "not JSON"),
    (b'{"input": "\xff"}', 400, None, "UTF-8"),
    (b"[" * 100_000, 400, None, "the body"),
    (b'{"input": NaN}', 400, None, "JSON"),
    (b"[]", 400, None, "object"),
    (b"{}", 400, "input", "required"),
    (body(input=None), 400, "input", "null"),
    (body(input=""), 400, "input", "empty"),
    (body(input=[]), 400, "input", "input is empty: a request needs at least one"),
    (body(input=["a", ""]), 400, "input", "input[1]"),
    (body(input=7), 400, "input", "int"),
    (body(input={"image": "a"}), 400, "input", "unknown field image"),
    (body(input=[{"text": "a"}, {"image": "a", "text": "b"}]), 400, "input", "unknown field image"),
    (body(input=[{"text": ""}]), 400, "input", "input[0]"),
    (body(input=["a", None]), 400, "input", "null"),
    (body(input=["a", 1.5]), 400, "input", "float"),
    (b'{"input": "\\ud800"}', 400, "input", "surrogate"),
    (body(input=[1, 2, 3]), 400, "input", "check_embedding_ctx_length=False"),
    (body(input=[[1, 2], [3]]), 400, "input", "check_embedding_ctx_length=False"),
    (body(input=["a"] * 2049), 400, "input", "2048"),
    (body(input="x" * (9 << 20)), 413, None, "the limit is"),
    (body(model=5), 400, "model", "int"),
    (body(encoding_format="hex"), 400, "encoding_format", "hex"),
    (body(dimensions=0), 400, "dimensions", "1"),
    (body(dimensions=-1), 400, "dimensions", "1"),
    (body(dimensions=385), 400, "dimensions", "384"),
    (body(dimensions=10**30), 400, "dimensions", ""),
    (body(dimensions="4"), 400, "dimensions", "str"),
    (body(dimensions=1.5), 400, "dimensions", "float"),
]


@pytest.mark.parametrize(("content", "status", "param", "words"), BAD_BODIES, ids=range(len(BAD_BODIES)))
async def test_bad_body_is_refused_and_its_neighbours_are_served(
    http: httpx.AsyncClient, content: bytes, status: int, param: str | None, words: str
) -> None:
    neighbours = [asyncio.create_task(embed(http, input=f"neighbour {number}")) for number in range(4)]
    response = await http.post(PATH, content=content, headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["code"]
    await asyncio.gather(*neighbours)


AZURE_BODY = {"input": ["hello", "hello world"]}


async def test_azures_path_answers_as_openais(http: httpx.AsyncClient) -> None:
    expected = await answer_to(http, "/v1/embeddings", **AZURE_BODY)
    for path in (
        "/openai/deployments/mine/embeddings?api-version=2024-10-21",
        f"/openai/deployments/{PACKAGED_NAME}/embeddings",
        f"/openai/deployments/{quote(PACKAGED_NAME, safe='')}/embeddings/",
    ):
        assert await answer_to(http, path, **AZURE_BODY) == expected
        assert await answer_to(http, path, **AZURE_BODY, model="whatever") == expected


async def test_azures_deployment_selects_the_model(tokenizer: str) -> None:
    async with gateway(f"a/one={tokenizer}", f"two={tokenizer}") as url, httpx.AsyncClient(base_url=url) as http:
        for name in ("a/one", "two"):
            answer = await answer_to(http, f"/openai/deployments/{name}/embeddings", **AZURE_BODY, model="three")
            assert answer["model"] == name
        missing = await http.post("/openai/deployments/three/embeddings", json=AZURE_BODY)
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_other_paths_of_deployments_are_404_and_other_methods_405(http: httpx.AsyncClient) -> None:
    for path in ("/openai/deployments/embeddings", "/openai/deployments//embeddings", "/openai/deployments/a/chat"):
        assert (await http.post(path, json=AZURE_BODY)).status_code == 404
    assert (await http.get("/openai/deployments/a/embeddings")).status_code == 405
