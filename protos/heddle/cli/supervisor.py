"""Keeps a set of services running as processes: starts them, restarts what dies, stops them in order.

`serve` says which services; nothing here knows what they do. A service that ends with exit code 2 has told on
its own output what is wrong with its configuration: it is not restarted, all others are stopped.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from heddle.cli import tether
from heddle.cli.console import Console
from heddle.rpc.settings import EXIT_MISCONFIGURED, ConfigurationError

PROBE_S = 0.05
PROGRESS_S = 0.1
LINE_BYTES_MAX = 1 << 20


class ServiceGaveUpError(Exception):
    """A service that ends again and again before it is ready."""


class ServiceMisconfiguredError(ConfigurationError):
    """A service that ended with exit code 2, after telling why."""


@dataclass(frozen=True, slots=True)
class Service:
    """One process to keep running."""

    name: str
    command: Sequence[str]
    is_ready: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str]  # all of it
    may_start: Callable[[], bool] = lambda: True  # asked until it is true, before the first start


@dataclass(frozen=True, slots=True)
class Limits:
    # A stopping service is killed after this long. An engine has 30 s for its requests, 2 for its sockets, 10 for its
    # backend.
    stop_s_max: float = 45.0
    # Attempts in a row that end before the service was ready.
    failures_max: int = 5
    # Pause before a restart; doubles with each failure in a row.
    pause_s: float = 0.25
    pause_s_max: float = 10.0


class Supervisor:
    """`tiers` are stopped in their order, each as a whole: those that callers reach first come first."""

    def __init__(self, tiers: Sequence[Sequence[Service]], console: Console, limits: Limits | None = None) -> None:
        self._console = console
        self._limits = limits or Limits()
        self._tiers = [[Keeper(service, console, self._limits) for service in tier] for tier in tiers]
        self._keepers = [keeper for tier in self._tiers for keeper in tier]

    async def run(self, stop: asyncio.Event, *, loading: str, when_ready: Callable[[float], None]) -> None:
        """Until `stop` is set. Calls `when_ready` with the seconds it took once all services are, the first time.
        Raises ServiceMisconfiguredError or ServiceGaveUpError; whatever happens, no process is left behind."""
        lives = [asyncio.ensure_future(keeper.keep_running()) for keeper in self._keepers]
        stopping = asyncio.ensure_future(stop.wait())
        announcing = asyncio.ensure_future(self._announce(loading, when_ready))
        try:
            await asyncio.wait((*lives, stopping), return_when=asyncio.FIRST_COMPLETED)
            for life in lives:
                if life.done():
                    life.result()
        except ServiceMisconfiguredError:
            for keeper in self._keepers:
                keeper.quiet = True  # the others have the same to say, or nothing of interest
            raise
        finally:
            announcing.cancel()
            stopping.cancel()
            self._console.end_progress()
            await self._stop()
            await asyncio.gather(*lives, return_exceptions=True)

    async def _announce(self, loading: str, when_ready: Callable[[float], None]) -> None:
        started = time.monotonic()
        while waiting := [keeper.service.name for keeper in self._keepers if not keeper.ready.is_set()]:
            self._console.progress(f"{loading}: waiting for {', '.join(waiting)} ({time.monotonic() - started:.0f} s)")
            await asyncio.sleep(PROGRESS_S)
        self._console.end_progress()
        when_ready(time.monotonic() - started)

    async def _stop(self) -> None:
        for keeper in self._keepers:
            keeper.stopping = True
        for tier in self._tiers:
            await asyncio.gather(*(keeper.stop() for keeper in tier))


class Keeper:
    """Keeps one service running."""

    def __init__(self, service: Service, console: Console, limits: Limits) -> None:
        self.service = service
        self.ready = asyncio.Event()
        self.stopping = False
        self.quiet = False
        self._console = console
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None
        self._resting: asyncio.Future[None] | None = None

    async def keep_running(self) -> None:
        """Returns when stopped; raises what makes it pointless to go on."""
        failures = 0
        while not (self.stopping or self.service.may_start()):
            await asyncio.sleep(PROBE_S)
        while not self.stopping:
            code = await self._live()
            if self.stopping:
                return
            if code == EXIT_MISCONFIGURED:
                raise ServiceMisconfiguredError(f"{self.service.name} cannot run as configured")
            failures = 0 if self.ready.is_set() else failures + 1
            if failures >= self._limits.failures_max:
                raise ServiceGaveUpError(
                    f"{self.service.name} {described(code)} before it was ready, {failures} times in a row: giving up"
                )
            await self._rest(code, min(self._limits.pause_s * 2**failures, self._limits.pause_s_max))

    async def stop(self) -> None:
        if self._resting:
            self._resting.cancel()
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._limits.stop_s_max):
                await process.wait()
        except TimeoutError:
            self._console.line(f"{self.service.name} has not stopped after {self._limits.stop_s_max:g} s: killing it")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _live(self) -> int:
        """One life of the process, from its start to its exit code."""
        self.ready.clear()
        process = self._process = await self._spawn()
        if self.stopping:
            process.kill()
        probing = asyncio.ensure_future(self._probe())
        printing = asyncio.ensure_future(self._print(process))
        try:
            return await process.wait()
        finally:
            self._process = None
            probing.cancel()
            await asyncio.wait((printing,), timeout=1)  # a grandchild may hold the pipe open
            printing.cancel()

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *self.service.command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**self.service.environment, "PYTHONUNBUFFERED": "1"},
            # Ctrl-C goes to all processes of a terminal's group; these are to be stopped in order.
            start_new_session=True,
            limit=LINE_BYTES_MAX,
        )

    async def _probe(self) -> None:
        while not await self.service.is_ready():
            await asyncio.sleep(PROBE_S)
        self.ready.set()

    async def _print(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        while line := await read_line(process.stdout):
            if not self.quiet:
                self._console.line(f"{self.service.name}: {line.decode(errors='replace').rstrip()}")

    async def _rest(self, code: int, pause_s: float) -> None:
        self._console.line(f"{self.service.name} {described(code)}: starting it again in {pause_s:g} s")
        self._resting = asyncio.ensure_future(asyncio.sleep(pause_s))
        await asyncio.wait((self._resting,))
        self._resting = None


async def read_line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or as much of it as one line may have; empty at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)


def described(code: int) -> str:
    """`code` as asyncio gives it: negative for a signal."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
