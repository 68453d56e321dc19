"""A certificate that is replaced while the server runs: new connections see it, and requests in flight are answered.
Without a listener, the server ends rather than run on unheard.
"""

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from heddle.rpc.credentials import ServerTls
from heddle.rpc.listening import bind_port
from http_gateway.web import listeners as listening
from http_gateway.web.bodies import WaitingBodies
from http_gateway.web.listeners import Listeners
from http_gateway.web.message import Request, Response
from http_gateway.web.server import HttpServer
from tests.certificates import Certificate, make_authority, sign

SLOW = "/slow"


class Caller:
    def __init__(self, port: int, ca: Certificate, accepted: list[str]) -> None:
        self.port = port
        self.accepted = accepted  # the paths that the server has been asked for
        self.url = f"https://127.0.0.1:{port}"
        self.context = ssl.create_default_context(cafile=ca.cert)

    async def shown_name(self) -> str:
        """The name in the certificate that a new connection is shown."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context)
        subject = writer.get_extra_info("peercert")["subject"]
        writer.close()
        return str(dict(pair for (pair,) in subject)["commonName"])

    async def wait_for_name(self, name: str) -> None:
        """No connection is refused or reset meanwhile."""
        async with asyncio.timeout(10):
            while await self.shown_name() != name:
                await asyncio.sleep(0.02)


def hears(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def install(source: Certificate, used: Certificate) -> None:
    shutil.copy(source.cert, used.cert)
    shutil.copy(source.key, used.key)


@pytest.fixture
def ca(tmp_path: Path) -> Certificate:
    return make_authority(tmp_path)


@pytest.fixture
def used(tmp_path: Path, ca: Certificate) -> Certificate:
    used = Certificate(tmp_path / "used.pem", tmp_path / "used.key")
    install(sign(ca, "first"), used)
    return used


@pytest.fixture
def release() -> asyncio.Event:
    """Lets the answers of SLOW go."""
    return asyncio.Event()


@pytest.fixture
async def caller(
    ca: Certificate, used: Certificate, release: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Caller]:
    monkeypatch.setattr(listening, "CERTIFICATE_CHECK_S", 0.05)

    accepted: list[str] = []

    async def answer(request: Request) -> Response:
        accepted.append(request.path)
        if request.path == SLOW:
            await release.wait()
        return Response(b"{}")

    http = HttpServer(
        answer,
        bind_port("127.0.0.1", 0),
        bodies=WaitingBodies(bodies_max=64, bytes_max=1 << 20, pause_s_max=10),
        connections_max=64,
        body_bytes_max=1 << 20,
        timeout_s=30,
        stall_s_max=10,
        tls=ServerTls(used.cert, used.key),
    )
    stop = asyncio.Event()
    serving = asyncio.create_task(http.serve(stop, 10, lambda: None))
    while not hears(http.port):
        await asyncio.sleep(0.01)
    yield Caller(http.port, ca, accepted)
    stop.set()
    await serving


async def test_new_connections_see_a_new_certificate_and_requests_in_flight_are_answered(
    caller: Caller, ca: Certificate, used: Certificate, release: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "LINGER_S", 0.1)
    # HTTP/1.1: Python's h2 takes no more answers once a server has announced that the connection will end.
    async with httpx.AsyncClient(verify=caller.context, base_url=caller.url, timeout=30) as http:
        slow = [asyncio.create_task(http.post(SLOW, json={})) for _ in range(10)]
        async with asyncio.timeout(10):
            while caller.accepted.count(SLOW) < len(slow):
                await asyncio.sleep(0.02)
        for name in ("second", "third"):
            install(sign(ca, name), used)
            await caller.wait_for_name(name)
        await asyncio.sleep(2 * listening.LISTEN_S)  # by then the earlier listeners accept nothing
        assert {await caller.shown_name() for _ in range(20)} == {"third"}
        assert not any(request.done() for request in slow)
        release.set()
        assert {response.status_code for response in await asyncio.gather(*slow)} == {200}
        assert (await http.post("/", json={})).status_code == 200


async def test_a_connection_that_has_sent_nothing_yet_outlives_the_change(
    caller: Caller, ca: Certificate, used: Certificate
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.port, ssl=caller.context)
    install(sign(ca, "second"), used)
    await caller.wait_for_name("second")
    await asyncio.sleep(2 * listening.LISTEN_S)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert await asyncio.wait_for(reader.readline(), 10) == b"HTTP/1.1 200 OK\r\n"
    writer.close()


async def test_files_that_do_not_fit_each_other_change_nothing(
    caller: Caller, ca: Certificate, used: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    second = sign(ca, "second")
    shutil.copy(second.cert, used.cert)
    async with asyncio.timeout(10):
        while "keeping the old certificate" not in caplog.text:
            await asyncio.sleep(0.02)
    assert await caller.shown_name() == "first"
    shutil.copy(second.key, used.key)
    await caller.wait_for_name("second")


class FakeListener:
    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.stopped = asyncio.Event()

    async def serve(self) -> None:
        if self._error:
            raise self._error
        await self.stopped.wait()

    def stop_accepting(self) -> None:
        pass

    def stop(self) -> None:
        self.stopped.set()


async def test_the_server_ends_if_any_of_its_listeners_cannot_listen() -> None:
    tcp: Any = FakeListener()
    unix_socket: Any = FakeListener(OSError("permission denied"))
    listeners = Listeners(lambda: tcp, None)
    listeners.start(unix_socket)
    with pytest.raises(OSError, match="permission denied"):
        async with asyncio.timeout(10):
            await listeners.serve(asyncio.Future())


async def test_the_old_listener_stays_until_a_new_one_listens(
    ca: Certificate, used: Certificate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "CERTIFICATE_CHECK_S", 0.02)
    monkeypatch.setattr(listening, "LISTEN_S", 0.02)
    monkeypatch.setattr(listening, "LINGER_S", 0.02)
    old, broken, new = FakeListener(), FakeListener(OSError("too many open files")), FakeListener()
    made: Any = iter((old, broken, new))
    listeners = Listeners(lambda: next(made), ServerTls(used.cert, used.key))
    stopping = asyncio.Future[None]()
    serving = asyncio.create_task(listeners.serve(stopping))
    install(sign(ca, "second"), used)
    async with asyncio.timeout(10):
        while "too many open files" not in caplog.text:
            await asyncio.sleep(0.005)
        assert not old.stopped.is_set()
        await old.stopped.wait()
    assert not new.stopped.is_set()
    stopping.set_result(None)
    await serving
    await listeners.close()
