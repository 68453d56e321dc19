"""Virtual environments for peers, which need other versions than Heddle. Each is made on first use from its pinned
list, in a folder that the caller chooses."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = Path(__file__).with_name("peers")
INSTALL_S_MAX = 900


class NotInstalledError(Exception):
    """Says in one line why a peer is skipped."""


@dataclass(frozen=True)
class Environment:
    """`name` is the name of its list in tests/bench/peers, and of its folder."""

    name: str
    base: Path

    @property
    def folder(self) -> Path:
        return self.base / self.name

    @property
    def python(self) -> Path:
        return self.folder / "env/bin/python"

    @property
    def pins(self) -> Path:
        return PINS / f"{self.name}.txt"

    @property
    def is_installed(self) -> bool:
        stamp = self.folder / "installed"
        return stamp.exists() and stamp.read_text() == self.pins.read_text()

    def install(self) -> None:
        """Raises NotInstalledError."""
        if self.is_installed:
            return
        print(f"installing {self.name} into {self.folder} (once)", file=sys.stderr)
        try:
            run(sys.executable, "-m", "venv", "--clear", str(self.folder / "env"))
            self.pip("install", pinned_torch())
            self.pip("install", "--no-deps", "-r", str(self.pins))
        except subprocess.SubprocessError as error:
            raise NotInstalledError(f"{self.name}: {last_line(error)}") from error
        (self.folder / "installed").write_text(self.pins.read_text())

    def pip(self, *arguments: str) -> None:
        run(str(self.python), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)


def run(*command: str) -> None:
    """Runs without PYTHONPATH, because packages found there would count as installed."""
    environment = {**os.environ, "PYTHONPATH": ""}
    subprocess.run(command, check=True, stderr=subprocess.PIPE, timeout=INSTALL_S_MAX, env=environment)


def last_line(error: subprocess.SubprocessError) -> str:
    written = error.stderr if isinstance(error, subprocess.CalledProcessError) else b""
    lines = (written or b"").decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else str(error)


def pinned_torch() -> str:
    """Returns the one version for all: most peers compute with torch."""
    lines = (ROOT / ".ci/constraints.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith("torch=="))
