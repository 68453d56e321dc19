"""Answers as bytes: the same numbers in JSON and MessagePack, in one part or in many, plain or compressed."""

import gzip
import json
import time
from typing import Any

import numpy as np
import ormsgpack
import pytest
import zstandard
from httpx import Headers

from http_gateway.web.message import Answer, LazyList, ResponseBody
from http_gateway.web.rendering import choose_format, render
from http_gateway.web.serialization import (
    BYTES_PER_TURN,
    ITEMS_AT_ONCE,
    JSON,
    MESSAGE_PACK,
    SECONDS_PER_TURN,
    serialize,
)
from tests.http_gateway.turns import Turns

ROWS_OF_SEVERAL_TURNS = 3 * BYTES_PER_TURN // (384 * 10)  # 10 bytes of JSON a number, and more


def table(rows: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(rows, 384)).astype(np.float32)


async def read_back(value: Any, accept: str) -> Any:
    response = await render(Answer(value), Headers({"accept": accept}), compressed_bytes_min=1 << 30)
    assert response.content_type == accept
    body = join_parts(response.body)
    return json.loads(body) if accept == "application/json" else ormsgpack.unpackb(body)


def join_parts(body: ResponseBody) -> bytes:
    return body if isinstance(body, bytes) else b"".join(body)


@pytest.mark.parametrize("accept", ["application/json", "application/msgpack"])
@pytest.mark.parametrize("rows", [0, 1, 7, 20, ROWS_OF_SEVERAL_TURNS])
async def test_every_number_survives_in_its_place(rows: int, accept: str) -> None:
    vectors = table(rows)
    assert np.array_equal(np.array(await read_back(LazyList(vectors), accept), np.float32).reshape(rows, 384), vectors)
    items = LazyList(range(rows), lambda index: {"embedding": vectors[index], "index": index})
    answer = await read_back({"data": items, "model": 'a"b', "inner": {"rows": LazyList(vectors)}}, accept)
    assert list(answer) == ["data", "model", "inner"]
    assert [item["index"] for item in answer["data"]] == list(range(rows))
    assert np.array_equal(
        np.array([item["embedding"] for item in answer["data"]], np.float32).reshape(-1, 384), vectors
    )
    assert np.array_equal(np.array(answer["inner"]["rows"], np.float32).reshape(rows, 384), vectors)


@pytest.mark.parametrize("accept", ["application/json", "application/msgpack"])
@pytest.mark.parametrize("lengths", [[], [0], [0, 3, 0], [1, 200, 1, 15, 16], [5000, 70_000], [ITEMS_AT_ONCE] * 40])
async def test_long_lists_of_lists_are_written_like_short_ones(lengths: list[int], accept: str) -> None:
    value = LazyList(lengths, lambda length: LazyList(range(length), lambda item: {"text": f"{item}", "id": item}))
    expected = [[{"text": f"{item}", "id": item} for item in range(length)] for length in lengths]
    assert await read_back(value, accept) == expected
    assert await read_back({"a": {"b": value, "c": [1, "x"]}, "d": None}, accept) == {
        "a": {"b": expected, "c": [1, "x"]},
        "d": None,
    }


async def test_lists_may_be_mixed_with_other_values() -> None:
    value = LazyList(range(200), lambda item: LazyList(range(item)) if item % 3 else {"score": item})
    assert await read_back(value, "application/json") == [
        list(range(item)) if item % 3 else {"score": item} for item in range(200)
    ]


@pytest.mark.parametrize("accept", ["application/json", "application/msgpack"])
@pytest.mark.parametrize("length", [1, 3, ITEMS_AT_ONCE, ITEMS_AT_ONCE + 1, 5000])
async def test_long_lists_may_be_anywhere_in_an_answer(length: int, accept: str) -> None:
    for count in (1, 50):
        value = LazyList(range(count), lambda item: {"item": item, "inner": [{"list": LazyList(range(length))}, "x"]})
        expected = [{"item": item, "inner": [{"list": list(range(length))}, "x"]} for item in range(count)]
        assert await read_back(value, accept) == expected
        assert await read_back({"plain": [[*value], LazyList([])]}, accept) == {"plain": [expected, []]}


async def test_a_long_list_is_written_in_several_turns() -> None:
    parts = await serialize(LazyList(table(ROWS_OF_SEVERAL_TURNS)), JSON)
    assert isinstance(parts, list)
    assert 3 <= len(parts) <= 30
    rows = json.loads(b"".join(parts))
    assert len(rows) == ROWS_OF_SEVERAL_TURNS
    assert len(await serialize(LazyList(["x" * BYTES_PER_TURN, *"y" * ITEMS_AT_ONCE]), JSON)) == 2


def slowly(number: int) -> str:
    time.sleep(SECONDS_PER_TURN / 5)
    return str(number)


@pytest.mark.parametrize(
    "value",
    [
        LazyList(range(300), slowly),
        LazyList(range(10), lambda start: LazyList(range(start, start + 30), slowly)),
        {"data": LazyList([range(300)], lambda numbers: LazyList(numbers, slowly))},
    ],
)
async def test_slow_items_yield_to_other_tasks(value: Any) -> None:
    with Turns() as turns:
        await serialize(value, JSON)
    assert turns.count >= 30


async def test_items_are_made_when_they_are_needed_and_not_kept() -> None:
    alive, most = 0, 0

    class Row(dict[str, int]):
        def __init__(self, index: int) -> None:
            nonlocal alive, most
            super().__init__(index=index)
            alive += 1
            most = max(most, alive)
            time.sleep(SECONDS_PER_TURN / 10)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    await serialize(LazyList(range(500), Row), JSON)
    assert most <= 50


async def test_a_value_that_cannot_be_serialized_is_an_error() -> None:
    for value in ({"a": object()}, LazyList(range(100), lambda _: object()), LazyList([[object()]] * 100)):
        with pytest.raises(TypeError):
            await serialize(value, JSON)


async def test_a_float_is_written_as_short_as_it_can_be() -> None:
    response = await render(Answer({"score": np.float32(0.1)}), Headers(), compressed_bytes_min=1)
    assert response.body == b'{"score":0.1}'


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("text/html,application/xhtml+xml,*/*;q=0.8", JSON),
        ("application/json, application/msgpack", MESSAGE_PACK),
        ("application/msgpack", MESSAGE_PACK),
        ("Application/X-MsgPack;q=0.9", MESSAGE_PACK),
        ("application/msgpack;q=0.5, application/json", JSON),
        ("application/msgpack;q=0.5, application/json;q=0.5", MESSAGE_PACK),
        ("application/msgpack;q=0.1, */*", JSON),
        ("application/msgpack;q=0.5, application/*;q=0.6, */*;q=0.1", JSON),
        ("application/msgpack;q=0.5, application/*;q=0.4, */*", MESSAGE_PACK),
        ("application/msgpack;q=0.5, application/json;q=0, */*", MESSAGE_PACK),
        ("application/msgpack, */*", MESSAGE_PACK),
        ("application/*", JSON),
        ("application/msgpack;q=0", JSON),
        ("application/msgpack;q=nonsense", JSON),
        (";;,,=q;q=", JSON),
    ],
)
def test_the_format_is_what_the_caller_prefers(accept: str | None, expected: Any) -> None:
    assert choose_format(accept) is expected


@pytest.mark.parametrize(
    ("accept_encoding", "coding"),
    [
        (None, None),
        ("zstd", "zstd"),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("gzip;q=0, zstd;q=0", None),
        ("br, identity", None),
    ],
)
@pytest.mark.parametrize("rows", [8, 200])
async def test_the_body_is_compressed_only_as_the_caller_asks(
    rows: int, accept_encoding: str | None, coding: str | None
) -> None:
    answer = Answer(LazyList(table(rows)))
    plain = await render(answer, Headers(), compressed_bytes_min=1)
    headers = Headers({} if accept_encoding is None else {"accept-encoding": accept_encoding})
    response = await render(answer, headers, compressed_bytes_min=1)
    assert dict(response.headers).get("content-encoding") == coding
    match coding:
        case "zstd":
            body = zstandard.ZstdDecompressor().decompress(join_parts(response.body))
        case "gzip":
            body = gzip.decompress(join_parts(response.body))
        case _:
            body = join_parts(response.body)
    assert body == join_parts(plain.body)


async def test_small_bodies_are_sent_as_they_are() -> None:
    response = await render(Answer([0.5] * 10), Headers({"accept-encoding": "zstd"}), compressed_bytes_min=1000)
    assert "content-encoding" not in dict(response.headers)
