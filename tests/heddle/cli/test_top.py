"""`heddle top` reads real services under load, in a pipe and in a terminal."""

import asyncio
import fcntl
import os
import re
import select
import struct
import sys
import termios
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from heddle.cli import metrics_ports, top
from heddle.rpc.settings import list_settings
from http_gateway.settings import GatewaySettings
from tests.cluster import engine_pod, gateway, tokenizer_pod
from tests.heddle.cli.command import ended, heddle
from tests.metrics import free_port

CALLERS = 4
# The addresses of a gateway, a tokenizer pod and two engines.
Addresses = tuple[str, str, str, str]

# Makes the terminal at standard input the process's controlling terminal, as a shell does.
IN_TERMINAL = """import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])"""
ALTERNATE_SCREEN, NORMAL_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"
HOME = b"\x1b[H"
SHOW_CURSOR = b"\x1b[?25h"


@asynccontextmanager
async def loaded_services(folder: Path) -> AsyncIterator[Addresses]:
    tokenizer_port, *ports = (free_port() for _ in range(3))
    folders = [folder / name for name in "ab"]
    for each in folders:
        each.mkdir()
    async with (
        engine_pod(folders[0], metrics_port=ports[0]) as first,
        engine_pod(folders[1], metrics_port=ports[1]) as second,
        tokenizer_pod(folder, first, second, metrics_port=tokenizer_port) as tokenizer,
        gateway(tokenizer) as url,
    ):
        load = [asyncio.create_task(send_load(url)) for _ in range(CALLERS)]
        try:
            yield (url, *(f"127.0.0.1:{port}" for port in (tokenizer_port, *ports)))  # type: ignore[misc]
        finally:
            for task in load:
                task.cancel()


async def send_load(url: str) -> None:
    """Sends requests until it is cancelled. A fifth of them are refused."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        while True:
            for body in [{"input": ["warp and weft", "loom"]}] * 4 + [{}]:
                await http.post("/v1/embeddings", json=body)


def cells_of(output: str, title: str, name: str) -> dict[str, str]:
    """The cells of a row of the table with this title. No column is empty in it."""
    lines = output.splitlines()
    header = next(line for line in lines if line.startswith(f"{title}  "))
    row = next(line for line in lines[lines.index(header) :] if line.startswith(f"{name} "))
    titles, cells = (re.split(r"\s{2,}", line.strip()) for line in (header, row))
    return dict(zip(titles[1:], cells[1:], strict=True))


async def test_once_prints_the_load_of_all_services(tmp_path: Path) -> None:
    async with loaded_services(tmp_path) as addresses:
        process = await heddle(tmp_path, "top", "--once", "--interval-s", "0.5", *addresses, COLUMNS="240")
        code, output, log = await ended(process)
    assert (code, log) == (0, "")
    assert "\x1b" not in output
    edge = cells_of(output, "gateway", addresses[0])
    tokenizer = cells_of(output, "tokenizer", addresses[1])
    engines = [cells_of(output, "2 engines", address) for address in addresses[2:]]
    assert float(edge["req/s"].replace(",", "")) > 1
    assert 0 < float(edge["4xx"].replace(",", "")) < float(edge["2xx"].replace(",", ""))
    assert edge["5xx"] == edge["429"] == tokenizer["failed"] == "0"
    assert (edge["pods"], tokenizer["pods"]) == ("1", "2")
    assert edge["p50"].endswith("ms") or edge["p50"].endswith(" s")
    assert tokenizer["tok/s"] != "0"
    assert any(engine["seq/s"] != "0" for engine in engines)
    assert all(engine["queue"].isdigit() and engine["up"] for engine in engines)


async def test_an_address_that_is_down_ends_once_with_code_1(tmp_path: Path) -> None:
    closed = f"127.0.0.1:{free_port()}"
    code, output, _ = await ended(await heddle(tmp_path, "top", "--once", "--interval-s=0.1", closed))
    assert code == 1
    assert f"{closed} is down: connection refused" in output


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (("--once", "--interval-s", "0"), "interval_s must be at least 0.1"),
        (("--tls-ca", "/nowhere.pem", "https://a:1"), "cannot read /nowhere.pem: No such file or directory"),
        (("--ones",), "unknown flag --ones; did you mean --once?"),
    ],
)
def test_a_mistake_of_the_user_is_reported_in_one_line(
    capsys: pytest.CaptureFixture[str], argv: Sequence[str], complaint: str
) -> None:
    try:
        code = top.main(argv, {})
    except SystemExit as end:
        code = int(end.code or 0)
    printed = capsys.readouterr().err
    assert (code, printed.count("\n")) == (2, 1)
    assert complaint in printed


def test_addresses_may_stand_between_flags() -> None:
    named = top.name_addresses(["a:1", "--interval-s", "2", "b:2", "--once", "c:3"])
    assert named == ["--addresses=a:1", "--interval-s", "2", "--addresses=b:2", "--once", "--addresses=c:3"]


def test_without_addresses_it_reads_what_serve_runs() -> None:
    assert f"127.0.0.1:{GatewaySettings.port}" in top.LOCAL_ADDRESSES
    assert f"127.0.0.1:{metrics_ports.TOKENIZER_METRICS_PORT}" in top.LOCAL_ADDRESSES
    assert f"127.0.0.1:{metrics_ports.ENGINE_METRICS_PORT + 7}" in top.LOCAL_ADDRESSES
    assert all(setting.help for setting in list_settings(top.TopSettings, top.PREFIX))


@dataclass
class Terminal:
    """A process in a terminal of its own."""

    screen: int  # what a terminal emulator reads and writes
    process: asyncio.subprocess.Process
    seen: bytes = b""

    async def read_until(self, text: bytes, times: int = 1, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while self.seen.count(text) < times:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen[-2000:]!r}"
            await asyncio.to_thread(self.read)

    def read(self) -> None:
        if select.select([self.screen], [], [], 0.1)[0]:
            with suppress(OSError):  # the process has ended
                self.seen += os.read(self.screen, 65_536)


@asynccontextmanager
async def terminal(columns: int, *argv: str) -> AsyncIterator[tuple[Terminal, int]]:
    """Yields the process and its end of the terminal."""
    screen, inside = os.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", IN_TERMINAL, sys.executable, "-m", "heddle", "top", *argv),
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env={**environ, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    try:
        yield Terminal(screen, process), inside
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(screen)
        os.close(inside)


@pytest.mark.parametrize("key", [b"\x03", b"q"])
async def test_the_live_view_is_redrawn_and_ends_cleanly(tmp_path: Path, key: bytes) -> None:
    async with (
        loaded_services(tmp_path) as addresses,
        terminal(90, "--interval-s", "0.2", *addresses) as (live, inside),
    ):
        before = termios.tcgetattr(inside)
        await live.read_until(b"req/s", times=4)
        assert ALTERNATE_SCREEN in live.seen
        assert b"2 engines" in live.seen
        assert termios.tcgetattr(inside) != before  # keys come at once
        for _ in range(6):  # Python may drop an interrupt, in a finalizer
            os.write(live.screen, key)
            with suppress(AssertionError):
                await live.read_until(NORMAL_SCREEN, seconds=5)
                break
        assert NORMAL_SCREEN in live.seen
        assert await asyncio.wait_for(live.process.wait(), 30) == 0
        live.read()
        assert termios.tcgetattr(inside) == before
    assert SHOW_CURSOR in live.seen
    assert b"Traceback" not in live.seen
    drawn = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", live.seen.replace(HOME, b"\n")).decode()
    assert max(len(line.rstrip()) for line in drawn.splitlines()) <= 90
