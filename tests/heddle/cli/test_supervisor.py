"""Processes are started, restarted and stopped in order, and never left behind."""

import asyncio
import dataclasses
import io
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from heddle.cli.supervisor import (
    Console,
    Limits,
    Service,
    ServiceGaveUpError,
    ServiceMisconfiguredError,
    Supervisor,
    attribute,
)
from heddle.rpc.waiting import poll_until

STAND_IN = Path(__file__).with_name("stand_in.py")
LIMITS = Limits(stop_s_max=10, failures_max=3, pause_s=0.01, pause_s_max=0.02)


def service(folder: Path, name: str, kind: str) -> Service:
    async def is_ready() -> bool:
        return is_alive(folder, name)

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # -S, which starts faster, hides packages
    return Service(name, (sys.executable, "-S", str(STAND_IN), str(folder), name, kind), is_ready, environment)


def process_of(folder: Path, name: str) -> int:
    """Returns its process id, or 0 if it has not started."""
    file = folder / f"{name}.pid"
    return int((file.read_text() if file.exists() else "") or 0)


def is_alive(folder: Path, name: str) -> bool:
    process = process_of(folder, name)
    stat = Path(f"/proc/{process}/stat")
    return bool(process) and stat.exists() and stat.read_text().split()[2] != "Z"


def events(folder: Path) -> list[str]:
    return (folder / "events").read_text().splitlines()


class RunningSupervisor:
    """A supervisor in a task of the test."""

    def __init__(self, *tiers: list[Service], limits: Limits = LIMITS) -> None:
        self.shown = io.StringIO()
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()
        supervisor = Supervisor(tiers, Console(self.shown), limits)
        self.task = asyncio.ensure_future(supervisor.run(self.stop, loading="loading m", when_ready=self.ready.set))

    async def wait_ready(self) -> None:
        done, _ = await asyncio.wait(
            (self.task, ready := asyncio.ensure_future(self.ready.wait())),
            timeout=20,
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert ready in done, self.shown.getvalue()

    async def end(self) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, 15)


def start(folder: Path, *tiers: str, limits: Limits = LIMITS) -> RunningSupervisor:
    """Each tier is written like `engine0=steady engine1=flaky`: names and kinds of stand-ins."""
    services = [[service(folder, *word.split("=")) for word in tier.split()] for tier in tiers]
    return RunningSupervisor(*services, limits=limits)


@asynccontextmanager
async def running(folder: Path, *tiers: str, limits: Limits = LIMITS) -> AsyncIterator[RunningSupervisor]:
    supervisor = start(folder, *tiers, limits=limits)
    try:
        await supervisor.wait_ready()
        yield supervisor
    finally:
        await supervisor.end()


async def wait_until(is_true: Callable[[], bool], seconds: float = 20) -> None:
    await asyncio.wait_for(poll_until(is_true), seconds)


async def test_services_stop_tier_by_tier(tmp_path: Path) -> None:
    async with running(tmp_path, "gateway=steady", "tokenizer=steady", "engine0=steady engine1=steady"):
        pass
    stopped = [event for event in events(tmp_path) if event.endswith("stopped")]
    assert stopped[:2] == ["gateway stopped", "tokenizer stopped"]
    assert sorted(stopped[2:]) == ["engine0 stopped", "engine1 stopped"]


async def test_a_service_that_dies_is_restarted(tmp_path: Path) -> None:
    async with running(tmp_path, "gateway=steady", "engine=steady") as supervisor:
        first = process_of(tmp_path, "engine")
        os.kill(first, signal.SIGKILL)
        await wait_until(lambda: process_of(tmp_path, "engine") != first and is_alive(tmp_path, "engine"))
        assert "engine was killed by SIGKILL: restarting it" in supervisor.shown.getvalue()
    assert events(tmp_path).count("engine started") == 2
    assert events(tmp_path).count("gateway started") == 1


SERVES_ONE = """
import os, socket, sys
listening = socket.socket(fileno=int(sys.argv[1]))
listening.listen()
connection, _ = listening.accept()
connection.sendall(str(os.getpid()).encode())
"""


async def test_connections_wait_while_a_service_is_restarted() -> None:
    async def is_ready() -> bool:
        return True

    with socket.create_server(("127.0.0.1", 0)) as held:
        address = held.getsockname()
        command = (sys.executable, "-S", "-c", SERVES_ONE, str(held.fileno()))
        one = Service("one", command, is_ready, os.environ, sockets=(held,))
        supervisor = RunningSupervisor([one])
        try:
            served_by = [await read_all(*address) for _ in range(3)]
        finally:
            await supervisor.end()
        assert len(set(served_by)) == 3
        with pytest.raises(ConnectionRefusedError):
            await read_all(*address)


async def read_all(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    async with asyncio.timeout(10):
        found = await reader.read()
    writer.close()
    return found


async def test_a_service_that_fails_before_it_is_ready_is_restarted(tmp_path: Path) -> None:
    async with running(tmp_path, "engine=flaky"):
        assert events(tmp_path) == ["engine started"] * 3


async def test_a_service_that_never_gets_ready_ends_all(tmp_path: Path) -> None:
    supervisor = start(tmp_path, "gateway=steady", "engine=broken")
    with pytest.raises(ServiceGaveUpError, match="engine exited with code 1 before it was ready, 3 times in a row"):
        await supervisor.task
    assert events(tmp_path).count("engine started") == 3
    assert not is_alive(tmp_path, "gateway")


async def test_a_misconfigured_service_is_reported_once_and_ends_all(tmp_path: Path) -> None:
    supervisor = start(tmp_path, "gateway=steady", "engine=misconfigured")
    with pytest.raises(ServiceMisconfiguredError):
        await supervisor.task
    assert supervisor.shown.getvalue().count("engine: engine: no such model\n") == 1
    assert events(tmp_path).count("engine started") == 1
    assert not is_alive(tmp_path, "gateway")


async def test_a_service_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    limits = Limits(stop_s_max=0.1)
    async with running(tmp_path, "gateway=stubborn", "engine=steady", limits=limits) as supervisor:
        pass
    assert "gateway is still running after 0.1 s: killing it" in supervisor.shown.getvalue()
    assert not is_alive(tmp_path, "gateway")
    assert "engine stopped" in events(tmp_path)


async def test_stopping_does_not_wait_for_a_service_to_be_ready(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    supervisor = RunningSupervisor([dataclasses.replace(service(tmp_path, "engine", "steady"), is_ready=never)])
    await wait_until(lambda: is_alive(tmp_path, "engine"))
    await supervisor.end()
    assert supervisor.shown.getvalue() == "loading m: waiting for engine (0 s)\n"
    assert not is_alive(tmp_path, "engine")


async def test_services_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from test_supervisor import start\n"
        "async def main(): await start(Path(sys.argv[1]), 'gateway=steady', 'engine=stubborn').task\n"
        "asyncio.run(main())"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(tmp_path)), env={**os.environ, "PYTHONPATH": path}
    )
    await wait_until(lambda: is_alive(tmp_path, "gateway") and is_alive(tmp_path, "engine"))
    supervisor.kill()
    await supervisor.wait()
    await wait_until(lambda: not is_alive(tmp_path, "gateway") and not is_alive(tmp_path, "engine"), seconds=5)


def test_lines_of_json_stay_json_and_name_their_process() -> None:
    line = json.dumps({"time": "2026-11-30T00:00:00.000Z", "message": "ready"})
    assert json.loads(attribute(line, "engine 1")) == {"process": "engine 1", **json.loads(line)}
    assert attribute("hello", "engine 1") == "engine 1: hello"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_stays_below_the_lines() -> None:
    terminal = Terminal()
    console = Console(terminal)
    console.progress("loading")
    console.line("engine: hello")
    console.end_progress()
    drawn = terminal.getvalue().split("\r\x1b[K")
    assert [part[1:] for part in (drawn[0], drawn[1].partition("\n")[2])] == [" loading", " loading"]
    assert drawn[1].startswith("engine: hello\n")
    assert drawn[2] == ""
