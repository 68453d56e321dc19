"""Runs `heddle serve` as a user does: three real services in processes of their own."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

START_S_MAX = 60
STOP_S_MAX = 40


@dataclass(frozen=True)
class Served:
    url: str  # http://host:port
    grpc: str  # host:port
    pid: int  # of the supervisor
    seconds_to_ready: float


@asynccontextmanager
async def served(*flags: str, **variables: str) -> AsyncIterator[Served]:
    """Yields when the services are ready. Stops them on exit, and checks that the exit code is 0. `variables` are
    environment variables."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heddle", "serve", "--http-port", "0", "--grpc-port", "0", *flags),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
    )
    assert process.stdout
    try:
        async with asyncio.timeout(START_S_MAX):
            welcome = b"".join([await process.stdout.readline() for _ in range(6)]).decode()
        yield Served(
            url=found(r"HTTP +(\S+)", welcome),
            grpc=found(r"gRPC +(\S+)", welcome),
            pid=process.pid,
            seconds_to_ready=float(found(r"after ([\d.]+) s", welcome)),
        )
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(STOP_S_MAX):
            code = await process.wait()
        assert code == 0, f"heddle serve ended with exit code {code}"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, f"no {pattern} in {text!r}"
    return match[1]
