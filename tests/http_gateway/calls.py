"""Helpers for the tests of routes: send a request, and check what must hold of every good answer and every refusal."""

from typing import Any

import httpx

from http_gateway.web.message import Request

COSTS = (
    "x-compute-tokens",
    "x-compute-characters",
    "x-compute-time",
    "x-total-time",
    "x-tokenization-time",
    "x-queue-time",
    "x-inference-time",
)


async def answer_to(http: httpx.AsyncClient, path: str, **body: Any) -> Any:
    response = await http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def refusal_of(http: httpx.AsyncClient, path: str, **body: Any) -> tuple[int, str, str]:
    """Status, TEI's type of the error, and the sentence."""
    response = await http.post(path, json=body)
    content = response.json()
    assert set(content) == {"error", "error_type"}, content
    return response.status_code, content["error_type"], content["error"]


async def check_refusals(http: httpx.AsyncClient, path: str, *cases: tuple[Any, tuple[int, str], str]) -> None:
    """Each case is a body, the status and TEI's type of its refusal, and the beginning of the sentence."""
    for body, expected, beginning in cases:
        refusal = await refusal_of(http, path, **body)
        assert refusal[:2] == expected, body
        assert refusal[2].startswith(beginning), refusal


async def costs_of(http: httpx.AsyncClient, path: str, **body: Any) -> dict[str, int]:
    response = await http.post(path, json=body)
    assert response.status_code == 200, response.text
    return {name: int(response.headers[name]) for name in (*COSTS, "x-truncated-inputs")}


def make_request(path: str = "/", headers: Any = None, peer: str = "") -> Request:
    """A request without a body."""
    return Request("POST", path, httpx.Headers(headers), 0, read_nothing, peer=peer)


async def read_nothing() -> bytes:
    return b""
