"""A text that is too long: whether it is cut, and where, are two wishes that do not touch each other."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.http_gateway.calls import answer_to, refusal_of

FIRST, LAST = "first " * 254, "last " * 254
LONG = "first " * 400 + "last " * 400


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A server that is set to refuse, and to cut on the left where it is told to cut."""
    async with (
        engine_pod(tmp_path) as engine,
        tokenizer_pod(tmp_path, engine, truncate=False, truncation_side="left") as tokenizer,
        gateway(tokenizer) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        yield http


@pytest.mark.parametrize("direction", ["Right", "left", None])
async def test_a_side_alone_does_not_overrule_a_server_that_refuses(
    strict: httpx.AsyncClient, direction: str | None
) -> None:
    for more in ({}, {"truncate": None}, {"truncate": False}):
        refusal = await refusal_of(strict, "/embed", inputs=LONG, truncation_direction=direction, **more)
        assert refusal == (413, "Validation", "the input has 802 tokens, the limit is 256 tokens")


@pytest.mark.parametrize(
    ("direction", "kept"),
    [({}, LAST), ({"truncation_direction": "Right"}, FIRST), ({"truncation_direction": "left"}, LAST)],
)
async def test_permission_alone_does_not_overrule_the_servers_side(
    strict: httpx.AsyncClient, direction: dict[str, str], kept: str
) -> None:
    cut = await answer_to(strict, "/embed", inputs=LONG, truncate=True, **direction)
    assert cut == await answer_to(strict, "/embed", inputs=kept)


async def test_cohere_says_both_with_one_word_and_follows_the_server_without(strict: httpx.AsyncClient) -> None:
    async def floats(text: str, **wish: str) -> Any:
        return (await answer_to(strict, "/v2/embed", texts=[text], **wish))["embeddings"]["float"]

    assert await floats(LONG, truncate="END") == await floats(FIRST)
    assert await floats(LONG, truncate="START") == await floats(LAST)
    for body in ({}, {"truncate": "NONE"}):
        assert (await strict.post("/v2/embed", json={"texts": [LONG], **body})).status_code == 400
