"""A process that runs all abuses at once until it is stopped. Started and stopped by `tests.soak`.

python -m tests.soak.abuses HTTP_PORT GRPC_ADDRESS
"""

import asyncio
import itertools
import json
import os
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc

from heddle.client import Client
from heddle.rpc.channels import open_channel
from heddle.rpc.errors import HeddleError
from tests.abuse import FLOODS, HEAD, PATH, flood, open_connections

PATHS = (PATH, "/embed", "/embed_all", "/rerank", "/predict", "/tokenize")
LARGE = json.dumps({"inputs": [f"{number} " + "words " * 300 for number in range(20)], "truncate": True}).encode()


def post(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def flood_in_turn(port: int) -> None:
    for kind in itertools.cycle(FLOODS):
        flood(port, FLOODS[kind], time.monotonic() + 0.5)
        time.sleep(1.5)


async def hold_idle_connections(port: int, _: str) -> None:
    async with open_connections(port, 3000):
        await asyncio.sleep(2)
    await asyncio.sleep(1)


async def withhold_bodies(port: int, _: str) -> None:
    async with open_connections(port, 500, HEAD):
        await asyncio.sleep(2)


async def send_bytes(port: int, _: str) -> None:
    body = os.urandom(random.randrange(2000)) if random.random() < 0.5 else b'{"input": [[1, 2], "a", null]}'
    async with open_connections(port, 1, post(random.choice(PATHS), body)) as (reader,):
        async with asyncio.timeout(10):
            await reader.read(100)
    await asyncio.sleep(0.02)


async def hang_up(port: int, _: str) -> None:
    """Sends whole requests, and does not wait for the answers."""
    async with open_connections(port, 20, post(PATH, b'{"input": "nobody waits for this"}')):
        await asyncio.sleep(random.random() / 100)
    await asyncio.sleep(0.3)


async def leave_large_answers_unread(port: int, _: str) -> None:
    async with open_connections(port, 3, post("/embed_all", LARGE)):
        await asyncio.sleep(2)


async def cancel_calls(_: int, address: str) -> None:
    async with Client(address) as client:
        for _number in range(50):
            calls = [asyncio.create_task(client.vectors(["cancelled"] * 50)) for _ in range(20)]
            await asyncio.sleep(random.random() / 50)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await asyncio.sleep(0.3)


async def open_silent_streams(_: int, address: str) -> None:
    async with open_channel(address) as channel:
        infer: Any = channel.stream_stream("/heddle.v1.InferenceService/Infer")
        streams = [infer() for _ in range(50)]
        await asyncio.sleep(5)
        for stream in streams:
            stream.cancel()


ABUSES = (
    *(hold_idle_connections, withhold_bodies, send_bytes, hang_up),
    *(leave_large_answers_unread, cancel_calls, open_silent_streams),
)


async def repeat(abuse: Callable[[int, str], Awaitable[None]], port: int, address: str) -> None:
    while True:
        with suppress(OSError, TimeoutError, HeddleError, grpc.aio.AioRpcError):
            await abuse(port, address)
        await asyncio.sleep(0.05)  # the services may be away


async def main(port: int, address: str) -> None:
    threading.Thread(target=flood_in_turn, args=(port,), daemon=True).start()
    await asyncio.gather(*(repeat(abuse, port, address) for abuse in ABUSES))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
