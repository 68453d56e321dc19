"""Truncation: whether a long text is cut and on which side are independent of each other, under all names of both."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from heddle.rpc.errors import HeddleError
from http_gateway.api.request_fields import merge_aliases
from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.http_gateway.calls import answer_to, refusal_of

FIRST, LAST = "first " * 254, "last " * 254
LONG = "first " * 400 + "last " * 400


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A server that refuses long texts unless the request allows truncation, and then cuts on the left."""
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


@pytest.mark.parametrize(
    ("wish", "kept"),
    [("END", FIRST), ("end", FIRST), ("Start", LAST), ("start", LAST), (True, LAST)],
)
async def test_truncate_sets_permission_and_side_on_every_route(
    strict: httpx.AsyncClient, wish: str | bool, kept: str
) -> None:
    expected = (await answer_to(strict, "/embed", inputs=[kept]))[0]
    assert await answer_to(strict, "/embed", inputs=[LONG], truncate=wish) == [expected]
    answer = await answer_to(strict, "/v1/embeddings", input=LONG, truncate=wish)
    assert answer["data"][0]["embedding"] == expected
    similarity = {"inputs": {"source_sentence": LONG, "sentences": [kept]}, "parameters": {"truncate": wish}}
    assert (await answer_to(strict, "/similarity", **similarity))[0] == pytest.approx(1)


@pytest.mark.parametrize("wish", ["NONE", "none", False])
async def test_none_refuses_long_texts(http: httpx.AsyncClient, wish: str | bool) -> None:
    refusal = await refusal_of(http, "/embed", inputs=LONG, truncate=wish)
    assert refusal == (413, "Validation", "the input has 802 tokens, the limit is 256 tokens")


@pytest.mark.parametrize(
    "fields",
    [
        {"truncate": "END", "truncation_direction": "Left"},
        {"truncate": "start", "truncation_side": "right"},
        {"truncation_side": "left", "truncation_direction": "Right"},
        {"truncate": "NONE", "truncation": True},
        {"truncate": True, "truncation": False},
    ],
)
async def test_fields_that_contradict_each_other_are_refused(http: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    first, second = fields
    refusal = await refusal_of(http, "/embed", inputs="a", **fields)
    assert refusal[:2] == (400, "Validation")
    assert first in refusal[2]
    assert second in refusal[2]


async def test_aliases_are_accepted(strict: httpx.AsyncClient) -> None:
    cut = await answer_to(strict, "/embed", inputs=LONG, truncation=True, truncation_side="right")
    assert cut == await answer_to(strict, "/embed", inputs=FIRST)


@pytest.mark.parametrize(
    ("wish", "kept"),
    [
        ({"truncate_prompt_tokens": 4}, "c d"),
        ({"truncate_prompt_tokens": 4, "truncation_side": "right"}, "a b"),
        ({"truncate_prompt_tokens": 300, "truncate": "END"}, "a b c d"),
        ({"truncate_prompt_tokens": -1}, "a b c d"),
    ],
)
async def test_truncate_prompt_tokens_allows_truncation(
    strict: httpx.AsyncClient, wish: dict[str, Any], kept: str
) -> None:
    expected = await answer_to(strict, "/embed", inputs=[kept])
    response = await strict.post("/v1/embeddings", json={"input": "a b c d", **wish})
    assert response.json()["data"][0]["embedding"] == expected[0]
    assert response.headers["x-truncated-inputs"] == str(int(kept != "a b c d"))


async def test_minus_one_is_the_models_limit(strict: httpx.AsyncClient) -> None:
    cut = await answer_to(strict, "/embed", inputs=LONG, truncate_prompt_tokens=-1)
    assert cut == await answer_to(strict, "/embed", inputs=LAST)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"truncate_prompt_tokens": 0}, (400, "truncate_prompt_tokens must be at least 1")),
        ({"truncate_prompt_tokens": -2}, (400, "truncate_prompt_tokens: ")),
        ({"truncate_prompt_tokens": 2}, (400, "a limit of 2 tokens leaves no room for text")),
        ({"truncate_prompt_tokens": 4, "truncate": False}, (413, "the input has 6 tokens, the limit is 4 tokens")),
    ],
)
async def test_impossible_limits_are_refused(
    http: httpx.AsyncClient, wish: dict[str, Any], words: tuple[int, str]
) -> None:
    status, _, message = await refusal_of(http, "/embed", inputs="a b c d", **wish)
    assert status == words[0]
    assert message.startswith(words[1])


async def test_coheres_truncate_sets_both_and_the_server_decides_without_it(strict: httpx.AsyncClient) -> None:
    async def floats(text: str, **wish: str) -> Any:
        return (await answer_to(strict, "/v2/embed", texts=[text], **wish))["embeddings"]["float"]

    assert await floats(LONG, truncate="END") == await floats(FIRST)
    assert await floats(LONG, truncate="START") == await floats(LAST)
    for body in ({}, {"truncate": "NONE"}):
        assert (await strict.post("/v2/embed", json={"texts": [LONG], **body})).status_code == 400


def test_aliases_merge_or_are_refused_if_they_differ() -> None:
    assert merge_aliases({"a": None, "b": 3, "c": 3}) == 3
    assert merge_aliases({"a": None, "b": False}) is False
    assert merge_aliases({"a": None}) is None
    with pytest.raises(HeddleError, match="a and c contradict each other"):
        merge_aliases({"a": 1, "b": None, "c": 2})
