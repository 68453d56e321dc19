"""What `heddle serve` shows: lines that stay, and on a terminal one line below them that tells what is going on."""

import sys
import time
from typing import TextIO

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"

# Where lines cannot be replaced, progress is told this often.
PLAIN_PROGRESS_S = 10.0


class Console:
    """Lines go to `stream`. The progress line is redrawn on a terminal, and repeated now and then elsewhere."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._progress = ""
        self._told_at = -PLAIN_PROGRESS_S
        self._frame = 0

    def line(self, text: str) -> None:
        self._write(f"{text}\n", self._progress)

    def progress(self, text: str) -> None:
        """Replaces the progress line; call it a few times a second."""
        if self._is_terminal:
            self._frame += 1
            self._write("", f"{SPINNER[self._frame % len(SPINNER)]} {text}")
        elif time.monotonic() - self._told_at >= PLAIN_PROGRESS_S:
            self._told_at = time.monotonic()
            self._write(f"{text}\n", "")

    def end_progress(self) -> None:
        self._write("", "")

    def _write(self, lines: str, progress: str) -> None:
        erase = "\r\x1b[K" if self._progress else ""
        self._progress = progress
        self._stream.write(erase + lines + progress)
        self._stream.flush()
