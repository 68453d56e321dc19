"""How many CPU cores this process may use. Asked by engine pods, and by `heddle serve`, which shares them out."""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = CGROUPS) -> int:
    """Those that it may run on, or fewer where its container has a limit of CPU time."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = limit_of(cgroups)
    return allowed if limit is None else min(allowed, max(1, math.ceil(limit)))


def limit_of(cgroups: Path) -> float | None:
    """In cores: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), or the first version's two files."""
    try:
        quota, period = (cgroups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max" is no limit
        return None
