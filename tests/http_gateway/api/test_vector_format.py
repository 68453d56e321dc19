"""Fields that clients of other servers send to /v1/embeddings are honoured, or refused by name."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from tests.http_gateway.calls import answer_to

PATH = "/v1/embeddings"
TEXTS = ["hello", "hello world"]
WHOLE = {"int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}


async def rows_of(http: httpx.AsyncClient, **body: Any) -> list[Any]:
    return [item["embedding"] for item in (await answer_to(http, PATH, **{"input": TEXTS, **body}))["data"]]


@pytest.mark.parametrize("field", ["embedding_type", "output_dtype"])
@pytest.mark.parametrize("name", WHOLE)
async def test_quantized_vectors_are_those_of_v2_embed(http: httpx.AsyncClient, field: str, name: str) -> None:
    expected = (await answer_to(http, "/v2/embed", texts=TEXTS, embedding_types=[name]))["embeddings"][name]
    assert await rows_of(http, **{field: name}) == expected
    encoded = await rows_of(http, **{field: name}, encoding_format="base64")
    read = [np.frombuffer(base64.b64decode(row), WHOLE[name]).tolist() for row in encoded]
    assert read == expected


async def test_aliases_for_floats_and_base64(http: httpx.AsyncClient) -> None:
    plain = await rows_of(http)
    assert await rows_of(http, embedding_type="float") == await rows_of(http, output_dtype="float") == plain
    assert await rows_of(http, embedding_type="base64") == await rows_of(http, encoding_format="base64")


async def test_embed_dtype_sets_the_type_inside_base64(http: httpx.AsyncClient) -> None:
    plain = np.array(await rows_of(http), np.float32)
    half = await rows_of(http, encoding_format="base64", embed_dtype="float16", endianness="little")
    assert [base64.b64decode(row) for row in half] == [row.astype("<f2").tobytes() for row in plain]
    brain = await rows_of(http, encoding_format="base64", embed_dtype="bfloat16")
    bits = np.array([np.frombuffer(base64.b64decode(row), "<u2") for row in brain]).astype(np.uint32) << 16
    assert np.allclose(bits.view(np.float32), plain, atol=0.01)
    assert await rows_of(http, encoding_format="base64", embed_dtype="float32") == await rows_of(
        http, encoding_format="base64"
    )
    assert np.allclose(await rows_of(http, embed_dtype="float16"), plain)  # for base64 only


@pytest.mark.parametrize("field", ["normalize", "normalized", "use_activation"])
async def test_vectors_are_not_normalised_if_the_request_says_so(http: httpx.AsyncClient, field: str) -> None:
    expected = await answer_to(http, "/embed", inputs=TEXTS, normalize=False)
    assert await rows_of(http, **{field: False}) == expected
    assert await rows_of(http, **{field: True}) == await rows_of(http) != expected


async def test_output_dimension_is_dimensions(http: httpx.AsyncClient) -> None:
    assert await rows_of(http, output_dimension=8) == await rows_of(http, dimensions=8)


async def test_input_type_chooses_the_prompt_as_v2_embed_does(prompted: httpx.AsyncClient) -> None:
    for input_type, text in {
        "search_query": "query: a",
        "query": "query: a",
        "search_document": "passage: a",
        "document": "passage: a",
        "passage": "passage: a",
        "clustering": "a",
    }.items():
        expected = await rows_of(prompted, input=text)
        assert await rows_of(prompted, input="a", input_type=input_type) == expected, input_type
    assert await rows_of(prompted, input="a", prompt_name="query") == await rows_of(prompted, input="query: a")
    for wrong, words in (
        ({"input_type": "querry"}, "not 'querry'"),
        ({"input_type": "query", "prompt_name": "passage"}, "contradict"),
        ({"prompt_name": "nope"}, "no prompt named 'nope'"),
    ):
        refused = await prompted.post(PATH, json={"input": "a", **wrong})
        assert refused.status_code == 400
        assert words in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "field",
    [
        {"add_special_tokens": False},
        {"late_chunking": True},
        {"return_multivector": True},
        {"return_dense": False},
        {"return_sparse": True},
        {"return_colbert_vecs": True},
        {"task": "retrieval.query"},
        {"modality": "image"},
        {"padding": "max_length"},
        {"mm_processor_kwargs": {"a": 1}},
        {"endianness": "big"},
        {"embed_dtype": "fp8_e4m3"},
        {"embedding_type": "sparse"},
        {"output_dtype": "int4"},
        {"embedding_type": "int8", "output_dtype": "uint8"},
        {"encoding_format": "float", "embedding_type": "base64"},
        {"encoding_format": "base64", "output_dtype": "int8", "embed_dtype": "float16"},
        {"dimensions": 8, "output_dimension": 9},
        {"normalize": True, "use_activation": False},
    ],
)
async def test_unsupported_values_are_refused_by_name(http: httpx.AsyncClient, field: dict[str, Any]) -> None:
    response = await http.post(PATH, json={"input": "a", **field})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == list(field)[-1]
    assert list(field)[-1] in error["message"]


async def test_values_that_change_nothing_are_accepted(http: httpx.AsyncClient) -> None:
    harmless = {
        "add_special_tokens": True,
        "late_chunking": False,
        "return_multivector": False,
        "return_dense": True,
        "return_sparse": False,
        "return_colbert_vecs": False,
        "task": "",
        "modality": "text",
        "padding": "do_not_pad",
        "mm_processor_kwargs": {},
        "endianness": "native",
        "user": "me",
        "priority": 3,
        "cache_salt": "salt",
    }
    assert await rows_of(http, **harmless) == await rows_of(http)
    assert await rows_of(http, **dict.fromkeys(harmless)) == await rows_of(http)


@pytest.mark.parametrize(
    ("field", "refused", "taken"),
    [
        ("max_chunks_per_doc", 10, 1),
        ("max_tokens_per_query", 5, 0),
        ("relevant_spans", {"mode": "enabled"}, {"mode": "disabled"}),
        ("return_embeddings", True, False),
        ("chat_template_kwargs", {"a": 1}, {}),
    ],
)
async def test_unsupported_values_of_rerank_fields_are_refused_by_name(
    http: httpx.AsyncClient, field: str, refused: Any, taken: Any
) -> None:
    """An embedder suffices, because the body is checked before the model's task."""
    body = {"query": "a", "documents": ["b"]}
    for path, key in (("/v1/rerank", "message"), ("/v2/rerank", "message"), ("/rerank", "error")):
        response = await http.post(path, json={**body, field: refused})
        assert response.status_code == 400
        assert response.json()[key].startswith(field)
        assert (await http.post(path, json={**body, field: taken})).status_code == 424
