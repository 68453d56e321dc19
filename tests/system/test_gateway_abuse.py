"""A gateway under abuse over its sockets answers other callers, and frees memory and files afterwards."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from heddle.rpc.waiting import poll_until
from tests.abuse import CONNECTIONS, FLOODS, HEAD, PATH, flood, open_connections
from tests.processes import resident_bytes, running
from tests.system.served import Served, served

pytestmark = [pytest.mark.slow, pytest.mark.chaos]

# Far more than is expected, far less than a connection that hangs.
ANSWER_S_MAX = 8.0
GROWTH_BYTES_MAX = 96 << 20

CONNECTIONS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Gateway:
    url: str
    pid: int

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def files(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    async def check_neighbours(self, count: int = 10) -> None:
        """Sends each request over a new connection. A kept connection would hide that new ones are not accepted."""
        for number in range(count):
            async with httpx.AsyncClient(base_url=self.url, timeout=ANSWER_S_MAX) as http:
                answer = await http.post(PATH, json={"input": f"neighbour {number}"})
                assert answer.status_code == 200, answer.text
                assert (await http.get("/live")).status_code == 200


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def heddle() -> AsyncIterator[Served]:
    variables = {"HEDDLE_GATEWAY_BODY_PAUSE_S_MAX": "3", "HEDDLE_GATEWAY_CONNECTIONS_MAX": str(CONNECTIONS_MAX)}
    async with served("--engine", "simulated", "--log-level", "error", **variables) as running:
        yield running


@pytest.fixture
async def gateway(heddle: Served) -> AsyncIterator[Gateway]:
    """Checks at the end that memory and files are as at the start."""
    (pid,) = running(heddle.pid, "http_gateway")
    gateway = Gateway(heddle.url, pid)
    await gateway.check_neighbours(3)
    files, resident = gateway.files(), resident_bytes(pid)
    yield gateway
    async with asyncio.timeout(20):
        await poll_until(lambda: gateway.files() <= files + 5)
    assert resident_bytes(pid) < resident + GROWTH_BYTES_MAX
    await gateway.check_neighbours(3)


async def test_bodies_that_never_arrive_block_nobody_and_are_given_up(gateway: Gateway) -> None:
    async with open_connections(gateway.port, 2600, HEAD) as readers:
        await asyncio.sleep(1)
        await gateway.check_neighbours()
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*(reader.read() for reader in readers))
        assert b"408" in (statuses := {answer.split()[1] for answer in answers})
        assert statuses <= {b"408", b"429"}


async def test_idle_connections_make_room_for_new_ones(gateway: Gateway) -> None:
    async with open_connections(gateway.port, CONNECTIONS):
        await gateway.check_neighbours()
        assert gateway.files() < CONNECTIONS_MAX + 500


@pytest.mark.parametrize("kind", FLOODS)
async def test_other_callers_are_answered_during_a_flood_of_frames(gateway: Gateway, kind: str) -> None:
    until = time.monotonic() + 1
    attackers = [threading.Thread(target=flood, args=(gateway.port, FLOODS[kind], until)) for _ in range(4)]
    for attacker in attackers:
        attacker.start()
    await asyncio.sleep(0.3)
    await gateway.check_neighbours(3)
    for attacker in attackers:
        await asyncio.to_thread(attacker.join)


async def test_a_killed_gateway_refuses_nobody(heddle: Served) -> None:
    """New connections wait for the restarted gateway. Requests that the killed one had accepted are lost."""
    (pid,) = running(heddle.pid, "http_gateway")
    os.kill(pid, 9)
    for _ in range(5):
        async with httpx.AsyncClient(base_url=heddle.url, timeout=30) as http:
            assert (await http.post(PATH, json={"input": "hello"})).status_code == 200
    assert running(heddle.pid, "http_gateway") != [pid]
