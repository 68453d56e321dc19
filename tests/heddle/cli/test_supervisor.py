"""Processes are started, watched, restarted and stopped in order, and never left behind."""

import asyncio
import dataclasses
import functools
import io
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
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
)

STAND_IN = Path(__file__).with_name("stand_in.py")
LIMITS = Limits(stop_s_max=10, failures_max=3, pause_s=0.01, pause_s_max=0.02)


def service(folder: Path, name: str, kind: str) -> Service:
    async def is_ready() -> bool:
        return is_alive(folder, name)

    return Service(name, (sys.executable, "-S", str(STAND_IN), str(folder), name, kind), is_ready, dict(os.environ))


def process_of(folder: Path, name: str) -> int:
    """Its process id, 0 while there is none."""
    file = folder / f"{name}.pid"
    return int((file.read_text() if file.exists() else "") or 0)


def is_alive(folder: Path, name: str) -> bool:
    process = process_of(folder, name)
    stat = Path(f"/proc/{process}/stat")
    return bool(process) and stat.exists() and stat.read_text().split()[2] != "Z"


def events(folder: Path) -> list[str]:
    return (folder / "events").read_text().splitlines()


class Run:
    """A supervisor that runs in a task of the test; its tiers are written `gateway=steady tokenizer=flaky`."""

    def __init__(self, folder: Path, *tiers: str, limits: Limits = LIMITS) -> None:
        self.shown = io.StringIO()
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()
        supervisor = Supervisor(
            [[service(folder, *word.split("=")) for word in tier.split()] for tier in tiers],
            Console(self.shown),
            limits,
        )
        self.task = asyncio.ensure_future(
            supervisor.run(self.stop, loading="loading m", when_ready=lambda _: self.ready.set())
        )

    async def until_ready(self) -> None:
        done, _ = await asyncio.wait(
            (self.task, ready := asyncio.ensure_future(self.ready.wait())),
            timeout=20,
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert ready in done, self.shown.getvalue()


@asynccontextmanager
async def running(folder: Path, *tiers: str, limits: Limits = LIMITS) -> AsyncIterator[Run]:
    run = Run(folder, *tiers, limits=limits)
    try:
        await run.until_ready()
        yield run
    finally:
        run.stop.set()
        await run.task


async def test_services_stop_tier_by_tier(tmp_path: Path) -> None:
    async with running(tmp_path, "gateway=steady", "tokenizer=steady", "engine0=steady engine1=steady"):
        pass
    stopped = [event for event in events(tmp_path) if event.endswith("stopped")]
    assert stopped[:2] == ["gateway stopped", "tokenizer stopped"]
    assert sorted(stopped[2:]) == ["engine0 stopped", "engine1 stopped"]


async def test_a_service_that_dies_is_started_again(tmp_path: Path) -> None:
    async with running(tmp_path, "gateway=steady", "engine=steady") as run:
        first = process_of(tmp_path, "engine")
        os.kill(first, signal.SIGKILL)
        while process_of(tmp_path, "engine") == first or not is_alive(tmp_path, "engine"):
            await asyncio.sleep(0.01)
        assert "engine was killed by SIGKILL: restarting it" in run.shown.getvalue()
    assert events(tmp_path).count("engine started") == 2
    assert events(tmp_path).count("gateway started") == 1


async def test_failures_before_ready_are_tried_again(tmp_path: Path) -> None:
    async with running(tmp_path, "engine=flaky"):
        assert events(tmp_path) == ["engine started"] * 3


async def test_a_service_that_never_gets_ready_ends_all(tmp_path: Path) -> None:
    run = Run(tmp_path, "gateway=steady", "engine=broken")
    with pytest.raises(ServiceGaveUpError, match="engine exited with code 1 before it was ready, 3 times in a row"):
        await run.task
    assert events(tmp_path).count("engine started") == 3
    assert not is_alive(tmp_path, "gateway")


async def test_a_misconfigured_service_is_told_once_and_ends_all(tmp_path: Path) -> None:
    run = Run(tmp_path, "gateway=steady", "engine=misconfigured")
    with pytest.raises(ServiceMisconfiguredError):
        await run.task
    assert run.shown.getvalue().count("engine: engine: no such model\n") == 1
    assert events(tmp_path).count("engine started") == 1
    assert not is_alive(tmp_path, "gateway")


async def test_a_service_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    limits = Limits(stop_s_max=0.1)
    async with running(tmp_path, "gateway=stubborn", "engine=steady", limits=limits) as run:
        pass
    assert "gateway is still running after 0.1 s: killing it" in run.shown.getvalue()
    assert not is_alive(tmp_path, "gateway")
    assert "engine stopped" in events(tmp_path)


async def test_stopping_does_not_wait_for_a_service_to_be_ready(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    endless = Service("engine", (sys.executable, "-c", "import time; time.sleep(60)"), never, dict(os.environ))
    shown, stop = io.StringIO(), asyncio.Event()
    run = functools.partial(Supervisor([[endless]], Console(shown), LIMITS).run, stop, loading="loading m")
    task = asyncio.ensure_future(run(when_ready=lambda _: None))
    await asyncio.sleep(0.2)
    stop.set()
    await asyncio.wait_for(task, 5)
    assert shown.getvalue() == "loading m: waiting for engine (0 s)\n"


async def test_services_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from test_supervisor import Run\n"
        "async def main(): await Run(Path(sys.argv[1]), 'gateway=steady', 'engine=stubborn').task\n"
        "asyncio.run(main())"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(tmp_path)), env={**os.environ, "PYTHONPATH": path}
    )
    while not (is_alive(tmp_path, "gateway") and is_alive(tmp_path, "engine")):
        await asyncio.sleep(0.01)
    supervisor.kill()
    await supervisor.wait()
    deadline = time.monotonic() + 5
    while is_alive(tmp_path, "gateway") or is_alive(tmp_path, "engine"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


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


async def test_service_starts_once_it_may(tmp_path: Path) -> None:
    starts = asyncio.Event()
    late = dataclasses.replace(service(tmp_path, "late", "steady"), may_start=starts.is_set)
    stop = asyncio.Event()
    supervisor = Supervisor([[late], [service(tmp_path, "early", "steady")]], Console(io.StringIO()), LIMITS)
    running = asyncio.ensure_future(supervisor.run(stop, loading="loading m", when_ready=lambda _: None))
    async with asyncio.timeout(20):
        while not is_alive(tmp_path, "early"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert not is_alive(tmp_path, "late")
        starts.set()
        while not is_alive(tmp_path, "late"):
            await asyncio.sleep(0.01)
        stop.set()
        await running


async def test_stop_does_not_wait_for_a_service_that_never_may_start(tmp_path: Path) -> None:
    never = dataclasses.replace(service(tmp_path, "never", "steady"), may_start=lambda: False)
    stop = asyncio.Event()
    supervisor = Supervisor([[never]], Console(io.StringIO()), LIMITS)
    running = asyncio.ensure_future(supervisor.run(stop, loading="loading m", when_ready=lambda _: None))
    await asyncio.sleep(0.1)
    stop.set()
    async with asyncio.timeout(5):
        await running
    assert process_of(tmp_path, "never") == 0
