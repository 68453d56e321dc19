"""The load against servers that count, wait, refuse or hang up: what it sends when, and what it counts as an answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.bench.load import Driver, Load, LoadError, Report

ANSWER_S = 0.01


@asynccontextmanager
async def serving(status: str = "200 OK", *, hangs_up: bool = False) -> AsyncIterator[int]:
    """A port that answers each request with its own body after a hundredth of a second."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                body = await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
                if hangs_up:
                    return
                await asyncio.sleep(ANSWER_S)
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.sleep(0.02)  # until it has noticed that its callers are gone


def load(port: int, *, connections: int = 0, per_second: float = 0.0) -> Load:
    bodies = [json.dumps({"number": number}) for number in range(10)]
    return Load(port, "/", bodies, 5, [5, 7], 0.3, 0.1, connections=connections, per_second=per_second)


async def test_a_closed_loop_has_one_request_under_way_on_each_connection() -> None:
    async with serving() as port:
        report = await Driver(load(port, connections=4)).run()
    answers = sum(report.answered)
    assert 0 < answers <= 4 * (report.seconds / ANSWER_S + 1)
    assert report.answers_in_all > answers
    assert report.p99_ms >= report.p90_ms >= report.p50_ms >= 1000 * ANSWER_S
    assert not report.errors


async def test_an_open_loop_sends_what_is_due_and_waits_for_the_last() -> None:
    async with serving() as port:
        report = await Driver(load(port, per_second=100)).run()
    assert 10 <= sum(report.answered) <= 60
    assert report.unanswered == 0


async def test_what_is_due_and_not_answered_counts_with_its_wait_so_far() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        slow = load(server.sockets[0].getsockname()[1], per_second=100)
        report = await Driver(replace(slow, grace_s=0.2)).run()
        await asyncio.sleep(0.02)
    assert sum(report.answered) == 0
    assert report.unanswered >= 10
    assert report.p50_ms >= 200


async def test_answers_that_are_wanted_are_kept_as_they_came() -> None:
    async with serving() as port:
        report = await Driver(load(port, connections=2)).run()
    assert {index: json.loads(body)["number"] for index, body in report.kept.items()} == {5: 5, 7: 7}


async def test_answers_other_than_200_are_errors() -> None:
    async with serving("503 Service Unavailable") as port:
        report: Report = await Driver(load(port, connections=2)).run()
    assert report.errors == sum(report.answered) > 0
    assert not report.kept


async def test_a_server_that_closes_connections_fails_the_load() -> None:
    async with serving(hangs_up=True) as port:
        with pytest.raises(LoadError):
            await Driver(load(port, connections=2)).run()


async def test_a_closed_loop_that_drains_has_an_answer_for_all_that_was_sent() -> None:
    async with serving() as port:
        driver = Driver(replace(load(port, connections=4), drain_s_max=1.0))
        report = await driver.run()
    assert report.answers_in_all == driver.sent
