"""Behaviour of every route: ids, keys, limits, probes, metrics, names of models, and the shape of refusals."""

import asyncio
import logging
import re
from pathlib import Path

import httpx
import pytest

from heddle.checkpoint.model_source import PACKAGED_NAME
from heddle.rpc.errors import ErrorKind, HeddleError
from http_gateway.errors import HTTP_STATUS_OF_KIND, Failure
from tests.cluster import engine_pod, gateway, tokenizer_pod

PATH = "/v1/embeddings"
BODY = {"input": "hello"}


async def test_request_id_is_echoed_or_made_and_logged(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "http_gateway.app")
    own = await http.post(PATH, json=BODY, headers={"x-request-id": "mine-1"})
    made = await http.post(PATH, json=BODY)
    assert own.headers["x-request-id"] == "mine-1"
    assert len(made.headers["x-request-id"]) == 16
    assert any(f"POST {PATH} 200" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("stated", [b"a\tb", b"caf\xc3\xa9", b"x" * 129])
async def test_a_request_id_that_is_not_printable_ascii_is_replaced(http: httpx.AsyncClient, stated: bytes) -> None:
    answer = await http.post(PATH, json=BODY, headers=[(b"x-request-id", stated)])
    assert answer.status_code == 200
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


async def test_unknown_paths_and_wrong_methods_get_openais_error_shape(http: httpx.AsyncClient) -> None:
    missing, wrong = await http.get("/nowhere"), await http.get(PATH)
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert "/nowhere" in missing.json()["error"]["message"]
    assert wrong.headers["allow"] == "POST"


async def test_a_slash_at_the_end_makes_no_difference(http: httpx.AsyncClient) -> None:
    assert (await http.post(f"{PATH}/", json=BODY)).status_code == 200


async def test_keys_open_the_routes_but_probes_need_none(tokenizer: str) -> None:
    async with gateway(tokenizer, api_keys=("first", "second")) as url, httpx.AsyncClient(base_url=url) as http:
        for header in ("Bearer first", "Api-Key second", "bearer second"):
            assert (await http.post(PATH, json=BODY, headers={"authorization": header})).status_code == 200
        assert (await http.post(PATH, json=BODY, headers={"api-key": "first"})).status_code == 200  # Azure's clients
        assert (await http.post(PATH, json=BODY, headers={"api-key": "third"})).status_code == 401
        for header in ("", "Bearer", "Bearer third", "Basic first", "Bearer \xe9"):
            refused = await http.post(PATH, json=BODY, headers={b"authorization": header.encode("latin-1")})
            assert refused.status_code == 401
            assert refused.json()["error"]["type"] == "authentication_error"
        for path in ("/health", "/ready", "/metrics"):
            assert (await http.get(path)).status_code == 200


async def test_beyond_the_limit_of_requests_it_is_429_at_once(tmp_path: Path) -> None:
    async with (
        engine_pod(tmp_path, simulated_fixed_us=200_000) as engine,
        tokenizer_pod(tmp_path, engine) as tokenizer,
        gateway(tokenizer, requests_max=3) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        responses = await asyncio.gather(*(http.post(PATH, json={"input": str(n)}) for n in range(10)))
        refused = [response for response in responses if response.status_code == 429]
        assert 0 < len(refused) <= 7
        assert all(int(response.headers["retry-after"]) >= 1 for response in refused)
        assert {response.status_code for response in responses} == {200, 429}
        assert (await http.post(PATH, json=BODY)).status_code == 200


async def test_probes_follow_the_pods(tmp_path: Path) -> None:
    async with engine_pod(tmp_path) as engine:
        pod = tokenizer_pod(tmp_path, engine)
        address = await pod.__aenter__()
        async with gateway(address) as url, httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/ready")).status_code == 200
            await pod.__aexit__(None, None, None)
            async with asyncio.timeout(5):
                while (await http.get("/ready")).status_code != 503:
                    await asyncio.sleep(0.02)
            for path in ("/health", "/ping", "/"):
                response = await http.get(path)
                assert (response.status_code, response.json()["error_type"]) == (503, "Unhealthy")
            assert (await http.get("/live")).status_code == 200


async def test_metrics_count_requests_by_route_and_status(http: httpx.AsyncClient) -> None:
    await http.post(PATH, json=BODY)
    await http.post(PATH, json={})
    text = (await http.get("/metrics")).text
    for status in (200, 400):
        labels = f'model="{PACKAGED_NAME}",route="{PATH}",status="{status}"'
        assert f"heddle_gateway_request_seconds_count{{{labels}}} 1.0" in text


async def test_models_are_listed_and_described(http: httpx.AsyncClient) -> None:
    listing = (await http.get("/v1/models")).json()
    assert [(model["id"], model["object"]) for model in listing["data"]] == [(PACKAGED_NAME, "model")]
    assert (await http.get(f"/v1/models/{PACKAGED_NAME}")).json()["id"] == PACKAGED_NAME
    assert (await http.get("/v1/models/gpt-2")).status_code == 404


async def test_any_name_will_do_for_the_only_model_unless_names_are_strict(tokenizer: str) -> None:
    for strict, status in ((False, 200), (True, 404)):
        async with gateway(tokenizer, strict_model_names=strict) as url, httpx.AsyncClient(base_url=url) as http:
            response = await http.post(PATH, json={**BODY, "model": "not-required"})
            assert response.status_code == status
            assert (await http.post(PATH, json={**BODY, "model": PACKAGED_NAME})).status_code == 200
    assert response.json()["error"]["param"] == "model"


async def test_the_name_selects_one_of_several_models(tokenizer: str) -> None:
    async with gateway(f"one={tokenizer}", f"two={tokenizer}") as url, httpx.AsyncClient(base_url=url) as http:
        answers = [await http.post(PATH, json={**BODY, "model": name}) for name in ("one", "two", "three")]
        assert [answer.status_code for answer in answers] == [200, 200, 404]
        assert [answer.json()["model"] for answer in answers[:2]] == ["one", "two"]
        assert (await http.post(PATH, json=BODY)).status_code == 400


def test_every_kind_of_error_has_a_status() -> None:
    assert HTTP_STATUS_OF_KIND.keys() == set(ErrorKind)


def test_a_bug_reveals_nothing_to_the_caller() -> None:
    failure = Failure.from_exception(KeyError("secret"))
    assert (failure.status, failure.message) == (500, "internal error")


def test_retry_advice_becomes_a_header() -> None:
    failure = Failure.from_exception(HeddleError(ErrorKind.OVERLOADED, "full", retry_after_ms=1500))
    assert dict(failure.headers) == {"retry-after": "2", "retry-after-ms": "1500"}
