"""Pages of allowed origins, and no others, can call from a browser and read every answer."""

from typing import Any

import httpx
import pytest

from http_gateway.settings import GatewaySettings
from http_gateway.web.sending import AT_ONCE_BYTES_MAX
from tests.cluster import gateway

PATH = "/v1/embeddings"
PAGE = "https://app.example.com"
ASKED = {"origin": PAGE, "access-control-request-method": "POST"}


def exposed_headers(response: httpx.Response) -> set[str]:
    return {name.strip() for name in response.headers["access-control-expose-headers"].split(",")}


async def test_a_preflight_needs_no_key_and_allows_any_header(tokenizer: str) -> None:
    wanted = "authorization,content-type,x-stainless-lang,x-anything-else"
    async with (
        gateway(tokenizer, api_keys=("secret",), cors_origins=("http://localhost:3000", PAGE)) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        for path in (PATH, "/embed", "//embed", "/nowhere"):
            answer = await http.options(path, headers={**ASKED, "access-control-request-headers": wanted})
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.headers["access-control-allow-headers"] == wanted
            assert "POST" in answer.headers["access-control-allow-methods"]
            assert "origin" in answer.headers["vary"]


async def test_every_answer_can_be_read_by_the_page(tokenizer: str) -> None:
    headers = {"origin": PAGE, "authorization": "Bearer secret"}
    settings: dict[str, Any] = {"api_keys": ("secret",), "cors_origins": (PAGE,), "request_bytes_max": 100_000}
    async with gateway(tokenizer, **settings) as url, httpx.AsyncClient(base_url=url, headers=headers) as http:
        answers = {
            200: await http.post(PATH, json={"input": "a"}),
            400: await http.post(PATH, json={}),
            401: await http.post(PATH, json={"input": "a"}, headers={"authorization": "Bearer wrong"}),
            404: await http.post("/nowhere", json={}),
            405: await http.get(PATH),
            413: await http.post(PATH, json={"input": "a" * 100_000}),
            415: await http.post(PATH, content=b"", headers={"content-encoding": "br"}),
        }
        for status, answer in answers.items():
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == PAGE, status
            assert exposed_headers(answer) >= {"x-request-id", "x-baseten-request-id"}
            assert "origin" in answer.headers["vary"]
        assert exposed_headers(answers[200]) >= {"x-compute-tokens", "x-total-time", "x-truncated-inputs"}
        long = await http.post("/embed", json={"inputs": [f"text {number}" for number in range(500)]})
        assert int(long.headers["content-length"]) > AT_ONCE_BYTES_MAX
        assert long.headers["access-control-allow-origin"] == PAGE


async def test_other_origins_get_no_cors_headers(tokenizer: str) -> None:
    async with gateway(tokenizer, cors_origins=(PAGE,)) as url, httpx.AsyncClient(base_url=url) as http:
        for origin in (
            "https://evil.example.com",
            "https://app.example.com.evil.com",
            "null",
            "HTTPS://APP.EXAMPLE.COM",
        ):
            preflight = await http.options(PATH, headers={**ASKED, "origin": origin})
            assert preflight.status_code == 403
            answer = await http.post(PATH, json={"input": "a"}, headers={"origin": origin})
            for response in (preflight, answer):
                assert "access-control-allow-origin" not in response.headers
                assert "origin" in response.headers["vary"]
        assert (await http.post(PATH, json={"input": "a"})).status_code == 200


async def test_a_star_allows_all_origins(tokenizer: str) -> None:
    async with gateway(tokenizer, cors_origins=("*",)) as url, httpx.AsyncClient(base_url=url) as http:
        for response in (
            await http.options(PATH, headers={**ASKED, "origin": "https://any.example"}),
            await http.post(PATH, json={"input": "a"}, headers={"origin": "null"}),
        ):
            assert response.is_success
            assert response.headers["access-control-allow-origin"] == "*"


async def test_cors_is_off_by_default(http: httpx.AsyncClient) -> None:
    preflight = await http.options(PATH, headers=ASKED)
    answer = await http.post(PATH, json={"input": "a"}, headers={"origin": PAGE})
    assert preflight.status_code == 405
    assert not any(name.startswith("access-control") for response in (preflight, answer) for name in response.headers)


@pytest.mark.parametrize(
    "origin",
    [
        *("app.example.com", "https://app.example.com/", "https://app.example.com/path", "https://*.example.com"),
        *("https://App.example.com", "https://app.example.com:443", "http://localhost:80", "null", "https://", "**"),
    ],
)
def test_invalid_origins_are_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ValueError, match=r"cors_origins: .* https://app\.example\.com .* or \*$"):
        GatewaySettings(cors_origins=(PAGE, origin))


@pytest.mark.parametrize(
    "origin", [PAGE, "http://localhost:3000", "http://[::1]:8080", "chrome-extension://abcdefgh", "http://127.0.0.1"]
)
def test_valid_origins_are_accepted(origin: str) -> None:
    assert GatewaySettings(cors_origins=(origin,)).cors_origins == (origin,)
