"""The results of one step, printed line by line and kept in a JSON file that is complete after every line, so that
an interrupted run loses nothing. Each step of `tests.gpu` gets one."""

import json
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

Row = dict[str, Any]

NUMBER_FORMAT = "{:,.4g}"


class Status(StrEnum):
    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"  # a check failed, or the step raised
    SKIPPED = "skipped"  # what it needs is not there
    CUT_OFF = "cut off"  # by its limit, or by a signal
    CRASHED = "crashed"  # its process ended before the step did
    NOT_RUN = "not run"  # no time was left


class SkippedError(Exception):
    """The step needs something that is not there."""


class Record:
    def __init__(self, folder: Path, step: str, deadline: float = float("inf")) -> None:
        """`deadline` is a time of time.monotonic()."""
        self.path = folder / f"{step}.json"
        self.folder = folder
        self._step = step
        self._deadline = deadline
        self._started = time.monotonic()
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.failures: list[str] = []

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def add(self, *, shown: bool = True, **values: Any) -> None:
        self.rows.append(values)
        if shown:
            print("  " + "  ".join(f"{name} {format_value(value)}" for name, value in values.items()), flush=True)
        self.write()

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(f"  {text}", flush=True)
        self.write()

    def fail(self, text: str) -> None:
        """Records a failed check. The step continues, and ends as failed."""
        self.failures.append(text)
        print(f"  FAILED: {text}", flush=True)
        self.write()

    def keep(self, rows: Sequence[Row], notes: Sequence[str], failures: Sequence[str]) -> None:
        """Keeps what another process found and has printed."""
        self.rows += rows
        self.notes += notes
        self.failures += failures
        self.write()

    def write(self, status: Status = Status.RUNNING) -> None:
        content = {
            "step": self._step,
            "status": status,
            "seconds": round(self.seconds, 2),
            "failures": self.failures,
            "notes": self.notes,
            "rows": self.rows,
        }
        write_whole(self.path, content)


def format_value(value: Any) -> str:
    return NUMBER_FORMAT.format(value) if isinstance(value, float) else str(value)


def format_table(rows: Sequence[Row]) -> str:
    """The rows as text; the columns are those of the first row."""
    if not rows:
        return ""
    names = list(rows[0])
    lines = [names, *([format_value(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def write_whole(path: Path, content: object) -> None:
    """Replaces the file atomically."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(path)


def read_rows(folder: Path, step: str) -> list[Row]:
    """The rows that a step wrote into this folder; none if it did not run."""
    path = folder / f"{step}.json"
    rows: list[Row] = json.loads(path.read_text())["rows"] if path.exists() else []
    return rows
