"""Network namespaces for tests that break networks. The tests are skipped without root and iproute2."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_numbers = itertools.count(1)


@dataclass
class Namespace:
    name: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Starts `python WORDS` in it."""
        command = ["ip", "netns", "exec", self.name, sys.executable, *words]
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        self.processes.append(process)
        return process

    def ip(self, *words: str) -> None:
        """Runs `ip WORDS` in it."""
        ip("-netns", self.name, *words)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def namespace(*, nameserver: str = "") -> Iterator[Namespace]:
    """Yields an empty namespace with a loopback interface. `nameserver` is its DNS server."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    made = Namespace(f"heddle-{os.getpid()}-{next(_numbers)}")
    settings = Path("/etc/netns", made.name)
    try:
        ip("netns", "add", made.name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr}")
    try:
        made.ip("link", "set", "lo", "up")
        if nameserver:
            settings.mkdir(parents=True)
            (settings / "resolv.conf").write_text(f"nameserver {nameserver}\n")
        yield made
    finally:
        for process in made.processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        ip("netns", "del", made.name)
        shutil.rmtree(settings, ignore_errors=True)
        with contextlib.suppress(OSError):
            settings.parent.rmdir()
