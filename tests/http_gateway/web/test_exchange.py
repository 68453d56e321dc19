"""The connections of exchanges that last are watched, and late bodies are given up."""

import asyncio
import time
from typing import Any

import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from http_gateway.web.bodies import WaitingBodies
from http_gateway.web.exchange import CHECK_S, Exchange, Watch


class FakeProtocol:
    """Stands in for granian's: a body that never comes, and a caller that hangs up once `hang_up` is set."""

    def __init__(self) -> None:
        self.hang_up = asyncio.Event()
        self.watched = 0

    async def client_disconnect(self) -> None:
        self.watched += 1
        await self.hang_up.wait()

    async def __call__(self) -> bytes:
        await asyncio.Event().wait()
        return b""


def new_watch(pause_s_max: float = 60) -> Watch:
    return Watch(WaitingBodies(bodies_max=10, bytes_max=100, pause_s_max=pause_s_max))


def begin(watch: Watch, timeout_s: float = 60) -> tuple[Exchange, FakeProtocol]:
    protocol: Any = FakeProtocol()
    headers = {"content-length": "1"}
    return Exchange(protocol, headers, watch, body_bytes_max=1, deadline=time.monotonic() + timeout_s), protocol


async def test_only_exchanges_that_last_are_watched_and_only_once() -> None:
    watch = new_watch()
    _, lasting = begin(watch)
    over, short = begin(watch)
    await asyncio.sleep(1.5 * CHECK_S)
    _, late = begin(watch)
    over.stop_watching()
    await asyncio.sleep(CHECK_S)
    assert (lasting.watched, short.watched, late.watched) == (1, 0, 0)
    await asyncio.sleep(2 * CHECK_S)
    assert (lasting.watched, short.watched, late.watched) == (1, 0, 1)


async def test_a_watch_without_exchanges_resumes_with_the_next_one() -> None:
    watch = new_watch()
    for _ in range(2):
        exchange, lasting = begin(watch)
        await asyncio.sleep(6 * CHECK_S)
        assert lasting.watched == 1
        exchange.stop_watching()
        await asyncio.sleep(2 * CHECK_S)


async def test_a_failing_check_leaves_the_others_watched() -> None:
    def fail() -> None:
        raise RuntimeError("closed")

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    watch = new_watch()
    broken, protocol = begin(watch)
    protocol.client_disconnect = fail  # type: ignore[assignment, method-assign]
    await asyncio.sleep(2.5 * CHECK_S)
    broken.stop_watching()
    _, lasting = begin(watch)
    await asyncio.sleep(2.5 * CHECK_S)
    assert lasting.watched == 1


async def test_a_hang_up_cancels_the_task_unless_the_exchange_is_over() -> None:
    async def handle(*, is_over: bool) -> None:
        exchange, protocol = begin(new_watch())
        await asyncio.sleep(2.5 * CHECK_S)
        if is_over:
            exchange.stop_watching()
        protocol.hang_up.set()
        await asyncio.sleep(2 * CHECK_S)

    await handle(is_over=True)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(handle(is_over=False))


async def test_a_body_that_is_late_ends_the_reading_and_not_the_task() -> None:
    exchange, _ = begin(new_watch(), timeout_s=CHECK_S / 2)
    with pytest.raises(HeddleError) as late:
        await exchange.read()
    assert late.value.kind is ErrorKind.DEADLINE_EXCEEDED
    await asyncio.sleep(2 * CHECK_S)
    exchange.stop_watching()
