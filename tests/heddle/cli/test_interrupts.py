"""A signal ends a command even if its downloads wait for a silent server."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.file_server import Fault, FileServer
from tests.heddle.checkpoint.sources.models import WEIGHTS, write_model
from tests.heddle.cli.command import ended, heddle
from tests.hub import Hub

NAME = "owner/small"
SILENT_S = 60.0  # longer than `ended` waits


@pytest.mark.parametrize(
    ("command", "number"), [("serve", signal.SIGINT), ("serve", signal.SIGTERM), ("build", signal.SIGINT)]
)
async def test_the_first_signal_ends_a_download_from_the_web(
    command: str, number: signal.Signals, tmp_path: Path
) -> None:
    write_model(tmp_path / "site" / "minilm")
    with FileServer(tmp_path / "site") as server:
        server.faults += [Fault(f"*{WEIGHTS}"), Fault(f"*{WEIGHTS}", delay_s=SILENT_S, times=-1)]
        process = await heddle(tmp_path, command, "--model", f"{server.url}/minilm", HEDDLE_CACHE=str(tmp_path))
        while len(server.requested(f"*{WEIGHTS}")) < 2:
            await asyncio.sleep(0.01)
        process.send_signal(number)
        code, _, log = await ended(process)
    assert code == 128 + number, log
    assert "Traceback" not in log


async def test_the_first_signal_ends_a_download_from_the_hub(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    with Hub({NAME: tmp_path / "model"}) as hub:
        hub.faults.append(Fault("/lfs/*", delay_s=SILENT_S, times=-1))
        process = await heddle(tmp_path, "serve", "--model", NAME, **hub.environ)
        while not hub.requested("/lfs/*"):
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        code, _, log = await ended(process)
    assert code == 128 + signal.SIGINT, log
    assert "Traceback" not in log
