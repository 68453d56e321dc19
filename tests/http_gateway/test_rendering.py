"""Answers as bytes: the same numbers in JSON and MessagePack, in one part or in many, plain or compressed."""

import asyncio
import gzip
import json
from typing import Any

import numpy as np
import ormsgpack
import pytest
import zstandard
from httpx import Headers

from http_gateway.message import Answer
from http_gateway.rendering import JSON, MESSAGE_PACK, NUMBERS_PER_TURN, LongList, each, format_for, rendered, turns

ROWS_OF_SEVERAL_TURNS = 3 * NUMBERS_PER_TURN // 384


def table(rows: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(rows, 384)).astype(np.float32)


async def read_back(value: Any, accept: str) -> Any:
    response = await rendered(Answer(value), Headers({"accept": accept}), compressed_bytes_min=1 << 30)
    assert response.content_type == accept
    return json.loads(response.body) if accept == "application/json" else ormsgpack.unpackb(response.body)


@pytest.mark.parametrize("accept", ["application/json", "application/msgpack"])
@pytest.mark.parametrize("rows", [0, 1, 7, 20, ROWS_OF_SEVERAL_TURNS])
async def test_every_number_survives_in_its_place(rows: int, accept: str) -> None:
    vectors = table(rows)
    assert np.array_equal(np.array(await read_back(LongList(vectors), accept), np.float32).reshape(rows, 384), vectors)
    items = LongList({"embedding": row, "index": index} for index, row in enumerate(vectors))
    answer = await read_back({"data": items, "model": 'a"b', "inner": {"rows": LongList(vectors)}}, accept)
    assert list(answer) == ["data", "model", "inner"]
    assert [item["index"] for item in answer["data"]] == list(range(rows))
    assert np.array_equal(
        np.array([item["embedding"] for item in answer["data"]], np.float32).reshape(-1, 384), vectors
    )
    assert np.array_equal(np.array(answer["inner"]["rows"], np.float32).reshape(rows, 384), vectors)


def test_a_long_list_is_written_in_several_turns() -> None:
    parts = list(turns(LongList(table(ROWS_OF_SEVERAL_TURNS))))
    assert len(parts) == 3
    assert sum(map(len, parts)) == ROWS_OF_SEVERAL_TURNS
    assert [len(part) for part in turns(LongList(["x" * 9 * NUMBERS_PER_TURN, "y"]))] == [1, 1]


async def test_making_many_things_leaves_the_loop_to_others() -> None:
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert await each(str, range(100)) == [str(number) for number in range(100)]
    task.cancel()
    assert others >= 90


async def test_a_float_is_written_as_short_as_it_can_be() -> None:
    response = await rendered(Answer({"score": np.float32(0.1)}), Headers(), compressed_bytes_min=1)
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
        ("application/msgpack;q=0", JSON),
        ("application/msgpack;q=nonsense", JSON),
        (";;,,=q;q=", JSON),
    ],
)
def test_the_format_is_what_the_caller_prefers(accept: str | None, expected: Any) -> None:
    assert format_for(accept) is expected


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
    answer = Answer(LongList(table(rows)))
    plain = await rendered(answer, Headers(), compressed_bytes_min=1)
    headers = Headers({} if accept_encoding is None else {"accept-encoding": accept_encoding})
    response = await rendered(answer, headers, compressed_bytes_min=1)
    assert dict(response.headers).get("content-encoding") == coding
    match coding:
        case "zstd":
            body = zstandard.ZstdDecompressor().decompress(response.body)
        case "gzip":
            body = gzip.decompress(response.body)
        case _:
            body = response.body
    assert body == plain.body


async def test_small_bodies_are_sent_as_they_are() -> None:
    response = await rendered(Answer([0.5] * 10), Headers({"accept-encoding": "zstd"}), compressed_bytes_min=1000)
    assert "content-encoding" not in dict(response.headers)
