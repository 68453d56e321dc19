"""Compressed requests are answered like the same ones uncompressed, up to the limit; broken ones are refused."""

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import zstandard

from http_gateway.errors import Failure
from http_gateway.web.compression import decompress
from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.http_gateway.turns import Turns

PATH = "/v1/embeddings"


def raw_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


def gzip_in_two_members(body: bytes) -> bytes:
    return gzip.compress(body[:10]) + gzip.compress(body[10:])


COMPRESSED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("gzip", gzip_in_two_members),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstandard.compress),
]


@pytest.mark.parametrize(("coding", "compress"), COMPRESSED)
@pytest.mark.parametrize("texts", [["hello"], [f"text {number}" for number in range(2000)]])
async def test_a_compressed_body_is_answered_like_the_body_itself(
    http: httpx.AsyncClient, coding: str, compress: Callable[[bytes], bytes], texts: list[str]
) -> None:
    body = json.dumps({"input": texts, "dimensions": 2}).encode()
    plain = await http.post(PATH, content=body)
    answer = await http.post(PATH, content=compress(body), headers={"content-encoding": coding.upper()})
    assert answer.status_code == 200, answer.text
    assert answer.json() == plain.json()


@pytest.mark.parametrize("coding", ["br", "gzip, zstd", "compress"])
async def test_an_unknown_coding_is_415_with_those_that_are_known(http: httpx.AsyncClient, coding: str) -> None:
    refused = await http.post(PATH, content=b"{}", headers={"content-encoding": coding})
    assert refused.status_code == 415
    assert refused.headers["accept-encoding"] == "gzip, deflate, zstd"
    assert coding in refused.json()["detail"]


async def test_identity_is_no_coding(http: httpx.AsyncClient) -> None:
    for name in ("Identity", "IDENTITY", ""):
        assert (await http.post("/embed", json={"inputs": "a"}, headers={"content-encoding": name})).status_code == 200


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", b'{"input": "a"}'),
        ("gzip", gzip.compress(b'{"input": "a"}', mtime=0)[:-9]),
        ("gzip", gzip.compress(b'{"input": "a"}', mtime=0)[:20] + b"\0" * 20),
        ("gzip", b""),
        ("deflate", b'{"input": "a"}'),
        ("deflate", zlib.compress(b'{"input": "a"}')[:-8]),
        ("zstd", b'{"input": "a"}'),
        ("zstd", zstandard.compress(b'{"input": "a"}')[:-3]),
    ],
)
async def test_a_broken_body_is_400(http: httpx.AsyncClient, coding: str, body: bytes) -> None:
    refused = await http.post(PATH, content=body, headers={"content-encoding": coding})
    assert refused.status_code == 400, refused.text


@pytest.mark.parametrize(("coding", "compress"), COMPRESSED)
async def test_the_limit_of_a_body_holds_after_decompression(
    tokenizer: str, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    async with gateway(tokenizer, request_bytes_max=50_000) as url, httpx.AsyncClient(base_url=url) as http:
        for size, status in ((40_000, 200), (60_000, 413)):
            body = compress(json.dumps({"inputs": "a" * size}).encode())
            answer = await http.post("/embed", content=body, headers={"content-encoding": coding})
            assert answer.status_code == status, answer.text


@pytest.mark.parametrize(("coding", "compress"), COMPRESSED)
async def test_decompression_of_a_bomb_stops_at_the_limit(coding: str, compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(b" " * (64 << 20))
    tracemalloc.start()
    with pytest.raises(Failure) as refused:
        await decompress(bomb, coding, bytes_max=1 << 20)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.status == 413
    assert most < 16 << 20


async def test_a_body_counts_with_the_bytes_that_it_has_once_decompressed(tmp_path: Path) -> None:
    body = gzip.compress(json.dumps({"inputs": "a" * 40_000}).encode())
    async with (
        engine_pod(tmp_path, simulated_fixed_us=500_000) as engine,
        tokenizer_pod(tmp_path, engine) as tokenizer,
        gateway(tokenizer, request_bytes_max=50_000, bodies_bytes_max=50_000) as url,
        httpx.AsyncClient(base_url=url, headers={"content-encoding": "gzip"}) as http,
    ):
        answers = await asyncio.gather(*(http.post("/embed", content=body) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 429]


async def test_a_frame_that_wants_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    body = zstandard.ZstdCompressor(compression_params=parameters).compressobj().compress(b"")
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = compressor.compress(b"x" * 100) + compressor.flush()
    with pytest.raises(Failure) as refused:
        await decompress(body, "zstd", bytes_max=1 << 20)
    assert refused.value.status == 400


async def test_the_event_loop_runs_while_a_body_is_decompressed() -> None:
    body = gzip.compress(b"".join(number.to_bytes(4, "big") for number in range(1_000_000)))
    with Turns() as turns:
        assert len(await decompress(body, "gzip", bytes_max=1 << 30)) == 4_000_000
    assert turns.count > 10


async def test_a_byte_order_mark_before_the_json_is_skipped(http: httpx.AsyncClient) -> None:
    for path, field in ((PATH, "input"), ("/embed", "inputs"), ("/", "inputs"), ("/v2/embed", "texts")):
        body = json.dumps({field: ["hello"]}).encode("utf-8-sig")
        answer = await http.post(path, content=body)
        assert answer.status_code == 200, (path, answer.text)
        refused = await http.post(path, content=b"\xef\xbb\xbf" + body)
        assert refused.status_code == 400
