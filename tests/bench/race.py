"""Measures two or more things in turns, so that other load on the machine affects all of them."""

import platform
import statistics
import time
from collections.abc import Callable, Sequence

import torch


def raced(passes: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Returns the median seconds of each."""
    taken: list[list[float]] = [[] for _ in passes]
    for run in passes:
        run()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken[0]) < 3:
        for run, times in zip(passes, taken, strict=True):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in taken]


def processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return platform.processor() or platform.machine()
