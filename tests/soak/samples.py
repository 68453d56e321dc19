"""Samples the memory and threads of processes over time, and finds growth. Called by `tests.soak`."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.processes import descendants, module_of

SERVICES = ("http_gateway", "tokenizer_svc", "engine_svc", "heddle")
MIB = 1 << 20
PIECES = 8  # in each of which the lowest sample counts: what is held for a moment is no growth
SAMPLES_MIN = 3 * PIECES

# Growth from the beginning to the end of a line below these is noise: a share of the first value, or so much.
SHARE = 0.15
NOISE = {"memory": 24 * MIB, "threads": 5.0}


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity of one process."""

    process: str
    quantity: str
    values: Sequence[float]

    def growth(self) -> float:
        """Fits a line through the lowest values, and returns its rise from start to end; 0 for too few samples."""
        if len(self.values) < SAMPLES_MIN:
            return 0.0
        lowest = [piece.min() for piece in np.array_split(np.array(self.values), PIECES)]
        slope, _ = np.polyfit(range(PIECES), lowest, 1)
        return float(slope * (PIECES - 1))

    @property
    def grows(self) -> bool:
        return self.growth() > max(NOISE[self.quantity], SHARE * self.values[0])

    def describe(self) -> str:
        unit, name = (MIB, " MiB") if self.quantity == "memory" else (1, "")
        first, highest, last = (value / unit for value in (self.values[0], max(self.values), self.values[-1]))
        return f"{first:.0f} first, {highest:.0f} most, {last:.0f} last, grew by {self.growth() / unit:+.1f}{name}"


class Samples:
    """Samples all services below a supervisor. The first samples of each process are dropped as its warm-up."""

    def __init__(self, supervisor: int, warm_up: int) -> None:
        """`warm_up` is a number of samples."""
        self._supervisor = supervisor
        self._warm_up = warm_up
        self._values: dict[tuple[str, int, str], list[float]] = {}

    def take(self) -> None:
        for pid in (self._supervisor, *descendants(self._supervisor)):
            with contextlib.suppress(OSError, ValueError):
                module = module_of(pid)
                if module in SERVICES:
                    for quantity, value in read_process(pid).items():
                        self._values.setdefault((module, pid, quantity), []).append(value)

    def series(self) -> list[Series]:
        """Returns the series of the processes that lived long enough."""
        return [
            Series(f"{module} {pid}", quantity, values[self._warm_up :])
            for (module, pid, quantity), values in self._values.items()
            if len(values) >= self._warm_up + SAMPLES_MIN
        ]


def count_files(supervisor: int) -> dict[int, int]:
    """Counts the open files of each service below a supervisor, by process. They follow the number of connections, so
    they can only be compared when nobody calls."""
    counted = {}
    for pid in (supervisor, *descendants(supervisor)):
        with contextlib.suppress(OSError, ValueError):
            if module_of(pid) in SERVICES:
                counted[pid] = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return counted


def read_process(pid: int) -> Mapping[str, float]:
    """Raises OSError for a process that has ended."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    memory = 1024.0 * int(status["VmRSS"].split()[0])
    return {"memory": memory, "threads": int(status["Threads"])}
