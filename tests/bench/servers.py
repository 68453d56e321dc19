"""The servers that take turns: how to start, call and stop them, and the CPU time of their processes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.measurement import OURS
from tests.processes import cpu_seconds, descendants

START_S_MAX = 180
STOP_S_MAX = 10
IDLE_S_MAX = 60
# A server is idle that takes less of a core than this.
IDLE_CORES_MAX = 0.1
MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Server:
    """`command` holds {port} in place of the port."""

    name: str
    command: tuple[str, ...]
    model: str  # what requests call it
    environment: Mapping[str, str] = field(default_factory=dict)
    embeddings_path: str = "/v1/embeddings"
    rerank_path: str = "/v1/rerank"
    ranks_as_tei: bool = False
    has_base64: bool = True
    computes: bool = True  # False: made-up answers, which are not compared with anything
    folder: Path | None = None  # where it runs; None: here


def heddle(*flags: str, name: str = OURS, model: str = MODEL, **environment: str) -> Server:
    """Heddle as a user starts it, with no setting but the model."""
    serve = (sys.executable, "-m", "heddle", "serve", "--http-port", "{port}", "--grpc-port", "0")
    return Server(name, (*serve, "--model", model, *flags), model, environment)


def simulated(name: str, engines: int, fixed_us: int, per_token_ns: int) -> Server:
    """Heddle without a model, which leaves the control plane alone."""
    cost = {"FIXED_US": str(fixed_us), "PER_TOKEN_NS": str(per_token_ns)}
    variables = {f"HEDDLE_ENGINE_SIMULATED_{key}": value for key, value in cost.items()}
    server = heddle("--engine", "simulated", "--engines", str(engines), name=name, **variables)
    return Server(name, server.command, server.model, server.environment, computes=False)


class Running:
    """A server's process. It is ready when `wait_until_ready` returns. `stop` may be called twice."""

    def __init__(self, server: Server) -> None:
        self.server = server
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        command = [part.format(port=self.port) for part in server.command]
        self.log = tempfile.NamedTemporaryFile()  # noqa: SIM115 # as long as the server
        environment = {**os.environ, **server.environment}
        self.process = subprocess.Popen(
            command, cwd=server.folder, env=environment, stdout=subprocess.DEVNULL, stderr=self.log
        )
        self.pid = self.process.pid

    def wait_until_ready(self) -> None:
        end = time.monotonic() + START_S_MAX
        while time.monotonic() < end:
            if self.process.poll() is not None:
                written = Path(self.log.name).read_text(errors="replace").strip().splitlines()
                raise RuntimeError(f"{self.server.name} is not ready but gone: {written[-1] if written else ''}")
            with contextlib.suppress(OSError, urllib.error.URLError):
                url = f"http://127.0.0.1:{self.port}/health"
                if urllib.request.urlopen(url, timeout=1).status == 200:
                    return
            time.sleep(0.1)
        raise TimeoutError(f"{self.server.name} did not answer")

    def wait_until_idle(self) -> None:
        """Waits, because a server that still works for callers who have left would slow down the next one."""
        end = time.monotonic() + IDLE_S_MAX
        while time.monotonic() < end:
            before = sum(self.cpu_seconds().values())
            time.sleep(0.25)
            if sum(self.cpu_seconds().values()) - before < 0.25 * IDLE_CORES_MAX:
                return

    def cpu_seconds(self) -> dict[str, float]:
        return cpu_seconds(self.pid)

    def stop(self, patience_s: float = STOP_S_MAX) -> None:
        """A server that first finishes its queue may take minutes."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            for one in (*descendants(self.pid), self.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
            self.process.wait()
