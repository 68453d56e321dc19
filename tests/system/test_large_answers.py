"""Large answers in real processes: single queries overtake them, and unread ones cost bounded memory."""

import asyncio
import json

import pytest

from tests.processes import resident_bytes, running
from tests.system.served import Served, served

pytestmark = [pytest.mark.slow, pytest.mark.chaos]

TEXTS = 50  # of 256 tokens: about 45 MB of JSON, and 20 MB between the services
READERS = 8
MIB = 1 << 20


class Caller:
    """A connection that the test reads from as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, service: Served) -> "Caller":
        host, port = service.url.removeprefix("http://").split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def send(self, path: str, inputs: list[str]) -> None:
        body = json.dumps({"inputs": inputs, "truncate": True}).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: heddle\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        self.writer.write(head.encode() + b"\r\n\r\n" + body)
        await self.writer.drain()

    async def read(self) -> int:
        """Returns the size of the answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], head
        size = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        left = size
        while left:
            left -= len(await self.reader.read(min(left, MIB)))
        return size


async def test_single_queries_overtake_large_answers_and_unread_answers_cost_bounded_memory() -> None:
    texts = [f"{number} " + "words " * 300 for number in range(TEXTS)]
    async with served("--engine", "simulated") as service:
        large, single = await Caller.connect(service), await Caller.connect(service)
        await large.send("/embed_all", texts)
        reading = asyncio.create_task(large.read())
        for number in range(20):
            await single.send("/embed", [f"a single query, number {number}"])
            await asyncio.wait_for(single.read(), 10)
            if number == 4:
                assert not reading.done()
        assert await asyncio.wait_for(reading, 30) > 25 * MIB

        unread = [await Caller.connect(service) for _ in range(READERS)]
        for caller in unread:
            await caller.send("/embed_all", texts)
        most = 0
        for number in range(30):
            await single.send("/embed", [f"another single query, number {number}"])
            await asyncio.wait_for(single.read(), 10)
            most = max(most, *map(resident_bytes, running(service.pid, "tokenizer_svc")))
            await asyncio.sleep(0.1)
        assert most < 750 * MIB
        for caller in (*unread, large, single):
            caller.writer.close()
