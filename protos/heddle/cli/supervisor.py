"""Runs services as processes: starts them all, restarts one that dies, stops them in order, and shows their output.

`serve` lists the services. One that exits with code 2 has already printed what is wrong with its configuration, so it
is not restarted, and all others are stopped.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

from heddle.cli import die_with_parent
from heddle.rpc.settings import EXIT_MISCONFIGURED, ConfigurationError
from heddle.telemetry.logs import TABLE_FIELD, JsonFormatter, LogFormat, LogLevel, align

PROBE_S = 0.05
PROGRESS_S = 0.1
LINE_BYTES_MAX = 1 << 20

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
# Seconds between progress lines where a line cannot be replaced.
PLAIN_PROGRESS_S = 10.0

# Prefix of the line in which `heddle.rpc.process` reports an operator's mistake. Time and logger name are left out.
MISTAKE = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} critical heddle\.rpc\.process: (?!unexpected error)")


# Begins the lines of `heddle.telemetry.logs.JsonFormatter`.
JSON_START = '{"time": '

Level = LogLevel | Literal["critical"]


class Console:
    """Prints lines and, below them, the current progress. A terminal shows one progress line that is redrawn; elsewhere
    it is printed every PLAIN_PROGRESS_S. With `json` all lines are objects, as those of the services."""

    def __init__(self, stream: TextIO = sys.stderr, *, log_format: LogFormat = "text") -> None:
        self._stream = stream
        self._json = JsonFormatter("heddle") if log_format == "json" else None
        self._is_terminal = stream.isatty() and not self._json
        self._progress = ""
        self._printed_at = -PLAIN_PROGRESS_S
        self._frame = 0

    def line(self, text: str, level: Level = "info", *, table: Sequence[Mapping[str, str]] = ()) -> None:
        self._write(f"{self.format(text, level, table=table)}\n", self._progress)

    def relay(self, text: str, process: str) -> None:
        """Prints what a process has printed, and names it."""
        if self._json and not text.startswith(JSON_START):
            text = self._json.format(make_record(text, "info"))
        self._write(f"{attribute(text, process)}\n", self._progress)

    def format(self, text: str, level: Level = "info", *, table: Sequence[Mapping[str, str]] = ()) -> str:
        if not self._json:
            return "\n".join((text, *align(table)))
        record = make_record(text.removeprefix("heddle: "), level)
        if table:
            setattr(record, TABLE_FIELD, table)
        return self._json.format(record)

    def progress(self, text: str) -> None:
        """Replaces the progress line. Call it several times a second."""
        if self._is_terminal:
            self._frame += 1
            self._write("", f"{SPINNER[self._frame % len(SPINNER)]} {text}")
        elif time.monotonic() - self._printed_at >= PLAIN_PROGRESS_S:
            self._printed_at = time.monotonic()
            self._write(f"{self.format(text)}\n", "")

    def end_progress(self) -> None:
        self._write("", "")

    def _write(self, lines: str, progress: str) -> None:
        erase = "\r\x1b[K" if self._progress else ""
        self._progress = progress
        self._stream.write(erase + lines + progress)
        self._stream.flush()


def make_record(text: str, level: Level) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "levelname": level.upper(), "name": __name__})


class ServiceGaveUpError(Exception):
    """A service died again and again before it was ready."""


class ServiceMisconfiguredError(ConfigurationError):
    """A service exited with code 2, after printing the reason."""


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    command: Sequence[str]
    is_ready: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str]  # the whole environment of the process
    # Sockets that the process inherits under the same file descriptors. They stay open in the supervisor, so that
    # connections wait while the process is restarted.
    sockets: Sequence[socket.socket] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    # A service that is still running this long after SIGTERM is killed. An engine takes up to 30 s to finish its
    # requests, 2 s to close its sockets, 2 s to send its last traces and 10 s to close its backend.
    stop_s_max: float = 50.0
    # Consecutive deaths before the service was ready.
    failures_max: int = 5
    # Pause before a restart. It doubles with each consecutive failure.
    pause_s: float = 0.25
    pause_s_max: float = 10.0


class Supervisor:
    def __init__(self, tiers: Sequence[Sequence[Service]], console: Console, limits: Limits | None = None) -> None:
        """Tiers are stopped one after the other, so list callers before the services that they call."""
        self._tiers = tiers
        self._console = console
        self._limits = limits or Limits()
        self._ready: set[str] = set()  # names of services
        self._stopping = False
        self._quiet = False

    async def run(self, stop: asyncio.Event, *, loading: str, when_ready: Callable[[], None]) -> None:
        """Runs until `stop` is set. Calls `when_ready` once, when all services are ready. Raises
        ServiceMisconfiguredError or ServiceGaveUpError. No process is left when it returns or raises."""
        tiers = [[asyncio.create_task(self._keep_running(service)) for service in tier] for tier in self._tiers]
        announcing = asyncio.create_task(self._announce(loading, when_ready))
        stopping = asyncio.create_task(stop.wait())
        try:
            tasks = [task for tier in tiers for task in tier]
            done, _ = await asyncio.wait((*tasks, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except ServiceMisconfiguredError:
            self._quiet = True  # the other services report the same mistake, or nothing of interest
            raise
        finally:
            self._stopping = True
            announcing.cancel()
            stopping.cancel()
            self._console.end_progress()
            for service in itertools.chain(*self._tiers):
                for held in service.sockets:
                    held.close()
            for tier in tiers:
                for task in tier:
                    task.cancel()
                await asyncio.gather(*tier, return_exceptions=True)

    async def _announce(self, loading: str, when_ready: Callable[[], None]) -> None:
        started = time.monotonic()
        names = [service.name for tier in self._tiers for service in tier]
        while waiting := [name for name in names if name not in self._ready]:
            self._console.progress(f"{loading}: waiting for {', '.join(waiting)} ({time.monotonic() - started:.0f} s)")
            await asyncio.sleep(PROGRESS_S)
        self._console.end_progress()
        when_ready()

    async def _keep_running(self, service: Service) -> None:
        """Stops the process when cancelled."""
        failures = 0
        while not self._stopping:
            code = await self._run_once(service)
            if self._stopping:
                return
            if code == EXIT_MISCONFIGURED:
                raise ServiceMisconfiguredError(f"{service.name} cannot run as configured")
            failures = 0 if service.name in self._ready else failures + 1
            if failures >= self._limits.failures_max:
                ended = f"{service.name} {describe_exit(code)} before it was ready"
                raise ServiceGaveUpError(f"{ended}, {failures} times in a row: giving up")
            pause_s = min(self._limits.pause_s * 2**failures, self._limits.pause_s_max)
            self._console.line(f"{service.name} {describe_exit(code)}: restarting it in {pause_s:g} s", "warning")
            await asyncio.sleep(pause_s)

    async def _run_once(self, service: Service) -> int:
        """Returns the exit code, negative for a signal."""
        self._ready.discard(service.name)
        process = await start_process(service)
        probing = asyncio.create_task(self._probe(service))
        printing = asyncio.create_task(self._print(service, process))
        try:
            return await process.wait()
        finally:
            probing.cancel()
            if process.returncode is None:
                await self._stop_process(service, process)
            await asyncio.wait((printing,), timeout=1)  # a grandchild may hold the pipe open
            printing.cancel()

    async def _stop_process(self, service: Service, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._limits.stop_s_max):
                await process.wait()
        except TimeoutError:
            line = f"{service.name} is still running after {self._limits.stop_s_max:g} s: killing it"
            self._console.line(line, "warning")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _probe(self, service: Service) -> None:
        while not await service.is_ready():
            await asyncio.sleep(PROBE_S)
        self._ready.add(service.name)

    async def _print(self, service: Service, process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        while line := await read_line(process.stdout):
            if not self._quiet:
                text = line.decode(errors="replace").rstrip()
                self._console.relay(text, service.name)


def attribute(line: str, name: str) -> str:
    """Adds the name of a service to a line that it printed. JSON stays JSON."""
    if line.startswith(JSON_START):
        return f'{{"process": {json.dumps(name)}, {line[1:]}'
    return f"{name}: {MISTAKE.sub('', line, count=1)}"


async def start_process(service: Service) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), *service.command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**service.environment, "PYTHONUNBUFFERED": "1"},
        # Ctrl-C signals every process of the terminal's group, but services must stop in order.
        start_new_session=True,
        limit=LINE_BYTES_MAX,
        pass_fds=[held.fileno() for held in service.sockets],
    )


async def read_line(stream: asyncio.StreamReader) -> bytes:
    """Returns the next line, or the part of it that fits into the buffer; b"" at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)


def describe_exit(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
