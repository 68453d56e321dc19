"""How long a process takes to start, phase by phase. Each service logs it in one line when it is ready:

    ready after 1.97 s: imports 0.35, checkpoint 0.01, torch 1.12, check 0.09, listen 0.02, weights 0.30, warm-up 0.06

`tests.bench.bench_start` reads these lines.
"""

import os
import time
from pathlib import Path

_imported_at = time.monotonic()
_ended: list[tuple[str, float]] = []  # phases, and when each ended by time.monotonic


def end_phase(name: str) -> None:
    """Ends a phase, which began when the previous one ended; the first began with the process. Any thread may call
    this."""
    _ended.append((name, time.monotonic()))


def describe_start() -> str:
    """Returns the seconds since the process started, and the seconds of each phase that has ended. Clears the phases,
    because pods of a test share a process."""
    began_at = before = process_began_at()
    phases = []
    for name, ended_at in _ended:
        phases.append(f"{name} {ended_at - before:.2f}")
        before = ended_at
    _ended.clear()
    seconds = f"{time.monotonic() - began_at:.2f} s"
    return f"{seconds}: {', '.join(phases)}" if phases else seconds


def process_began_at() -> float:
    """Returns the start in the time of time.monotonic, within 10 ms. Outside Linux: when this file was imported."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return _imported_at
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - age_s
