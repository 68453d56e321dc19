"""The device of each engine of `heddle serve` on a machine with several GPUs, and its welcome. The processes import a
fake NVML."""

import os
import sys
import time
from pathlib import Path

import pytest

from heddle.checkpoint import ModelKind
from heddle.cli import serve
from heddle.cli.metrics_ports import MetricsAddress
from heddle.cli.serve_settings import ServeSettings
from heddle.rpc.listening import bind_port
from heddle.telemetry.logs import LogFormat
from tests.heddle.cli.command import ended, serving, write_stand_ins

TWO_GPUS = """
import ctypes

CDLL = ctypes.CDLL


class Nvml:
    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = 2
        return 0

    def nvmlShutdown(self):
        return 0


ctypes.CDLL = lambda name, *args, **kwargs: Nvml() if name == "libnvidia-ml.so.1" else CDLL(name, *args, **kwargs)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_stand_ins(tmp_path)


@pytest.fixture
def two_gpus(tmp_path: Path) -> str:
    """The PYTHONPATH of a process that finds two GPUs."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(TWO_GPUS)
    return os.pathsep.join([str(tmp_path / "site"), *sys.path])


async def devices(folder: Path, *flags: str, **environ: str) -> tuple[list[str], str]:
    """Returns the --device of each engine, "" without the flag, and the log."""
    async with serving(folder, *flags, **environ) as (process, _):
        process.terminate()
        code, _, log = await ended(process)
    assert code == 0
    started = sorted(line for line in log.splitlines() if line.startswith("engine") and ": started " in line)
    chosen = [words[words.index("--device") + 1] if "--device" in words else "" for words in map(str.split, started)]
    return chosen, log


async def test_engines_are_spread_over_the_gpus(folder: Path, two_gpus: str) -> None:
    chosen, log = await devices(folder, "--engines", "4", PYTHONPATH=two_gpus)
    assert chosen == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert "GPUs" not in log


async def test_idle_gpus_are_reported(folder: Path, two_gpus: str) -> None:
    chosen, log = await devices(folder, PYTHONPATH=two_gpus)
    assert chosen == [""]
    assert "\nusing 1 of 2 GPUs; --engines 2 uses all\n" in log


async def test_a_hidden_gpu_is_not_used(folder: Path, two_gpus: str) -> None:
    chosen, log = await devices(folder, "--engines", "2", PYTHONPATH=two_gpus, CUDA_VISIBLE_DEVICES="1")
    assert chosen == ["", ""]
    assert "GPUs" not in log


@pytest.mark.parametrize(
    ("flags", "environ", "device"),
    [
        (["--device", "cuda:1"], {}, "cuda:1"),
        (["--device", "cpu"], {}, "cpu"),
        ([], {"HEDDLE_ENGINE_DEVICE": "cpu"}, ""),
        (["--engine", "simulated"], {}, ""),
    ],
)
async def test_all_engines_get_the_chosen_device(
    folder: Path, two_gpus: str, flags: list[str], environ: dict[str, str], device: str
) -> None:
    chosen, log = await devices(folder, "--engines", "2", *flags, PYTHONPATH=two_gpus, **environ)
    assert chosen == [device, device]
    assert "GPUs" not in log


async def test_without_gpus_engines_choose_for_themselves(folder: Path) -> None:
    chosen, log = await devices(folder, "--engines", "2")
    assert chosen == ["", ""]
    assert "GPUs" not in log


def test_the_welcome_counts_from_the_start_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "process_began_at", lambda: time.monotonic() - 100)
    with bind_port("127.0.0.1", 0) as http:
        services = serve.LocalServices(
            ServeSettings(), ModelKind.EMBEDDER, "/sockets", revision="", http=http, grpc_port=2, environ={}, metrics=[]
        )
        assert "is ready after 100." in services.welcome()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_format_of_logs_is_passed_unless_a_service_has_its_own(log_format: LogFormat) -> None:
    environ = {"HEDDLE_ENGINE_LOG_FORMAT": "text"}
    with bind_port("127.0.0.1", 0) as http:
        services = serve.LocalServices(
            ServeSettings(log_format=log_format),
            ModelKind.EMBEDDER,
            "/sockets",
            revision="",
            http=http,
            grpc_port=2,
            environ=environ,
            metrics=[MetricsAddress("127.0.0.1", "9151"), MetricsAddress("127.0.0.1", "9152")],
        )
        commands = [list(service.command) for tier in services.tiers() for service in tier]
    passed = [command[command.index("--log-format") + 1] if "--log-format" in command else "" for command in commands]
    assert passed == (["json", "json", ""] if log_format == "json" else ["", "", ""])
