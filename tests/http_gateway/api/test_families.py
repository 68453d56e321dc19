"""Errors in the shape of each family of clients, with the family's status or the one that is set."""

import time
from typing import Any

import httpx
import msgspec
import ormsgpack
import pytest
import zstandard

from http_gateway.api.families import COHERE, OPENAI, TEI
from http_gateway.errors import Failure
from tests.cluster import gateway

SIMILAR = {"source_sentence": "a", "sentences": ["b"]}
PATHS = {"/v1/embeddings": "input", "/embed": "inputs", "/v2/embed": "texts"}


def test_openai_clients_and_baseten_clients_read_the_same_body() -> None:
    failure = Failure(413, "too_large", "too many", param="input")
    assert msgspec.json.decode(OPENAI.body(failure)) == {
        "error": {"message": "too many", "type": "invalid_request_error", "param": "input", "code": "too_large"},
        "message": "too many",
        "code": 413,
        "type": "Validation",
        "detail": "too many",
    }
    assert msgspec.json.decode(TEI.body(failure)) == {"error": "too many", "error_type": "Validation"}
    assert msgspec.json.decode(COHERE.body(failure)) == {"message": "too many", "detail": "too many"}


@pytest.mark.parametrize(
    ("code", "type_"),
    [
        ("empty_input", "Empty"),
        ("wrong_task", "Backend"),
        ("overloaded", "Overloaded"),
        ("unavailable", "Unhealthy"),
        ("deadline_exceeded", "DeadlineExceeded"),
        ("not_found", "NotFound"),
    ],
)
def test_error_types_are_teis_if_it_has_one(code: str, type_: str) -> None:
    assert msgspec.json.decode(TEI.body(Failure(400, code, "")))["error_type"] == type_


@pytest.mark.parametrize(
    ("path", "setting", "status"),
    [
        *(("/v1/embeddings", None, 400), ("/embed", None, 413), ("/v2/embed", None, 400)),
        *((path, str(status), status) for path in PATHS for status in (413, 422)),
    ],
)
async def test_input_over_a_limit_has_the_status_of_the_family_unless_one_is_set(
    tokenizer: str, path: str, setting: str | None, status: int
) -> None:
    settings: dict[str, Any] = {"over_limit_status": setting, "request_inputs_max": 2, "request_bytes_max": 10_000}
    async with gateway(tokenizer, **settings) as url, httpx.AsyncClient(base_url=url) as http:
        response = await http.post(path, json={PATHS[path]: ["a", "b", "c"]})
        assert response.status_code == status
        assert "the limit is 2" in response.text
        assert (await http.post(path, json={PATHS[path]: ["a", "b"]})).status_code == 200
        assert (await http.post(path, json={PATHS[path]: "x" * 10_000})).status_code == 413


@pytest.mark.parametrize("path", PATHS)
async def test_a_deadline_in_the_past_is_504_without_any_work(http: httpx.AsyncClient, path: str) -> None:
    for headers in ({"request-timeout-ms": "0"}, {"request-deadline-ms": str(int(time.time() * 1000) - 5)}):
        response = await http.post(path, json={PATHS[path]: ["a"]}, headers=headers)
        assert response.status_code == 504, response.text


async def test_answers_are_what_accept_asks_for_and_errors_are_always_json(http: httpx.AsyncClient) -> None:
    asked = {"accept": "application/json, application/msgpack", "accept-encoding": "zstd"}
    texts = [f"text {number}" for number in range(64)]
    plain = (await http.post("/v1/embeddings", json={"input": texts})).json()
    async with http.stream("POST", "/v1/embeddings", json={"input": texts}, headers=asked) as response:
        body = b"".join([piece async for piece in response.aiter_raw()])
    assert response.headers["content-type"] == "application/msgpack"
    assert response.headers["content-encoding"] == "zstd"
    answer = ormsgpack.unpackb(zstandard.ZstdDecompressor().decompress(body))
    assert answer["usage"] == plain["usage"]
    assert [pytest.approx(row["embedding"], abs=1e-7) for row in answer["data"]] == [
        row["embedding"] for row in plain["data"]
    ]
    refused = await http.post("/v1/embeddings", json={}, headers=asked)
    assert refused.headers["content-type"] == "application/json"
    assert refused.json()["error"]["param"] == "input"


async def test_gzip_is_sent_if_zstd_is_not_accepted(http: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"input": [f"text {number}" for number in range(64)]}
    for encoding, coding in (("gzip", "gzip"), ("identity", None), ("gzip, zstd", "zstd")):
        async with http.stream("POST", "/v1/embeddings", json=body, headers={"accept-encoding": encoding}) as response:
            await response.aread()
        assert response.headers.get("content-encoding") == coding


async def test_the_request_id_is_the_callers_whichever_header_it_has(http: httpx.AsyncClient) -> None:
    for header in ("x-request-id", "x-baseten-customer-request-id"):
        response = await http.post("/embed", json={"inputs": "a"}, headers={header: "perfclient-1-0"})
        assert response.headers["x-request-id"] == "perfclient-1-0"
        assert response.headers["x-baseten-request-id"] == "perfclient-1-0"
    ids = {(await http.post("/embed", json={"inputs": "a"})).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2


async def test_a_wrong_method_gets_the_error_shape_of_the_route(http: httpx.AsyncClient) -> None:
    for path, fields in (("/embed", {"error", "error_type"}), ("/v2/embed", {"message", "detail"})):
        response = await http.get(path)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        assert set(response.json()) == fields


@pytest.mark.parametrize(
    ("path", "body", "values"),
    [
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, "Left, Right, left, right"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, "base64, float"),
        ("/v2/embed", {"texts": ["a"], "embedding_types": ["int4"]}, "base64, binary, float, int8, ubinary, uint8"),
        ("/v2/embed", {"texts": ["a"], "truncate": "MIDDLE"}, "END, End, NONE, None, START, Start, end, none, start"),
        ("/similarity", {"inputs": SIMILAR, "parameters": {"truncation_direction": "up"}}, "Left, Right, left, right"),
        ("/predict_tokens", {"inputs": "a", "aggregation_strategy": "x"}, "average, first, max, none, simple"),
    ],
)
async def test_an_unknown_value_is_refused_with_the_list_of_known_ones(
    http: httpx.AsyncClient, path: str, body: dict[str, object], values: str
) -> None:
    response = await http.post(path, json=body)
    assert response.status_code == 400
    assert f"it is one of {values}" in response.text
