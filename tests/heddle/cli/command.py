"""The `heddle` command as a process, with stand-ins for the services."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ANY_PORTS = ("--http-port", "0", "--grpc-port", "0")


def write_stand_ins(folder: Path) -> Path:
    """Returns a folder where `python -m engine_svc` and the like run stand-ins."""
    for name in ("engine_svc", "tokenizer_svc", "http_gateway"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
        shutil.copy(Path(__file__).with_name("stand_in_pod.py"), folder / name / "__main__.py")
    return folder


async def heddle(folder: Path, *argv: str, **environ: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heddle", *argv),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environ},
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    """Returns exit code, stdout and stderr."""
    output, log = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, output.decode(), log.decode()


@asynccontextmanager
async def serving(folder: Path, *argv: str, **environ: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Yields a ready `heddle serve` and its welcome text."""
    process = await heddle(folder, "serve", *ANY_PORTS, *argv, **environ)
    assert process.stdout
    try:
        async with asyncio.timeout(30):
            welcome = b"".join([await process.stdout.readline() for _ in range(6)])
        yield process, welcome.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
