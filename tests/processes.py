"""The descendants of a process, by the module that each runs. Tests and benchmarks use it, on Linux only."""

import contextlib
import os
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def module_of(pid: int) -> str:
    """Returns engine_svc for `python -m engine_svc`, and the name of other programs."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return words[words.index("-m") + 1] if "-m" in words else Path(words[0]).name


def running(pid: int, module: str) -> list[int]:
    """Finds the descendants that run `python -m module`."""
    return [child for child in descendants(pid) if module_of(child) == module]


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid: int) -> dict[str, float]:
    """Returns the CPU time that a process and its descendants have used, by module."""
    used: dict[str, float] = {}
    for one in (pid, *descendants(pid)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            seconds = (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
            used[module_of(one)] = used.get(module_of(one), 0.0) + seconds
    return used
