"""`heddle serve` leaves no sockets behind, however it ends."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

START_S_MAX = 60
STOP_S_MAX = 40
FLAGS = ("--http-port", "0", "--grpc-port", "0", "--engine", "simulated")


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A folder with a short path, because the paths of sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        yield Path(folder)


@asynccontextmanager
async def started(runtime: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A server in its own process group, ready on entry."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heddle", "serve", *FLAGS),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "XDG_RUNTIME_DIR": str(runtime)},
        start_new_session=True,
    )
    assert process.stdout
    try:
        async with asyncio.timeout(START_S_MAX):
            assert b"is ready" in await process.stdout.readline()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def code_of(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(STOP_S_MAX):
        return await process.wait()


def folders(runtime: Path) -> list[Path]:
    return sorted(runtime.glob("heddle-*"))


async def test_a_signal_to_the_process_group_leaves_nothing(runtime: Path) -> None:
    async with started(runtime) as process:
        (folder,) = folders(runtime)
        assert {socket.name for socket in folder.iterdir()} >= {"engine-0", "tokenizer"}
        os.killpg(process.pid, signal.SIGTERM)
        assert await code_of(process) == 0
    assert not folders(runtime)


async def test_a_second_signal_leaves_nothing(runtime: Path) -> None:
    async with started(runtime) as process:
        os.killpg(process.pid, signal.SIGTERM)
        await asyncio.sleep(0.02)
        os.killpg(process.pid, signal.SIGTERM)
        assert await code_of(process) in (0, 128 + signal.SIGTERM)
    assert not folders(runtime)


async def test_the_next_start_removes_the_sockets_of_a_killed_one_only(runtime: Path) -> None:
    async with started(runtime) as killed:
        killed.kill()
        await code_of(killed)
    (abandoned,) = folders(runtime)
    async with started(runtime) as first:
        assert abandoned not in folders(runtime)
        (folder,) = folders(runtime)
        async with started(runtime) as second:
            assert len(folders(runtime)) == 2
            second.send_signal(signal.SIGTERM)
            assert await code_of(second) == 0
        assert folders(runtime) == [folder]
        first.send_signal(signal.SIGTERM)
        assert await code_of(first) == 0
    assert not folders(runtime)
