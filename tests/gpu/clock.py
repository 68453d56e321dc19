"""Measures times on a device. CUDA runs asynchronously, so device time comes from its own events, and wall time is
taken only around work that ends in host memory."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

REPEATS_MIN = 5
WARM_UPS = 3


@dataclass(frozen=True)
class Times:
    seconds: list[float]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    def percentile_ms(self, percent: float) -> float:
        return 1e3 * float(np.percentile(self.seconds, percent))


def measure_wall_times(
    run: Callable[[int], object], seconds: float, repeats_min: int = REPEATS_MIN, warm_ups: int = WARM_UPS
) -> Times:
    """Wall time of each run. `run` must end with its result in host memory; it is given the number of the run."""
    for index in range(warm_ups):
        run(index)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < repeats_min or time.perf_counter() < end:
        start = time.perf_counter()
        run(len(taken))
        taken.append(time.perf_counter() - start)
    return Times(taken)


def measure_device_seconds(run: Callable[[], object], device: str, seconds: float) -> float:
    """Returns the median time of `run`. CUDA replays it as a graph if it can be captured, without launch overhead."""
    for _ in range(WARM_UPS):
        run()
    if device != "cuda":
        return measure_wall_times(lambda _: run(), seconds).median
    replay = capture(run) or run
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < REPEATS_MIN or time.perf_counter() < end:
        start, stop = new_event(), new_event()
        start.record()
        replay()
        stop.record()
        stop.synchronize()
        taken.append(start.elapsed_time(stop) / 1e3)
    return float(np.median(taken))


def new_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def capture(run: Callable[[], object]) -> Callable[[], object] | None:
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    # A capture that fails leaves its stream the current one, unless that is inside a block of its own.
    with contextlib.suppress(RuntimeError), torch.cuda.stream(stream):
        with torch.cuda.graph(graph, stream=stream):
            run()
        return graph.replay
    torch.cuda.synchronize()
    return None


@contextlib.contextmanager
def track_peak_memory(device: str) -> Iterator[Callable[[], float]]:
    """Yields a function that returns the peak memory of the block so far in GiB; 0 on a CPU."""
    if device != "cuda":
        yield lambda: 0.0
        return
    torch.cuda.reset_peak_memory_stats()
    yield lambda: torch.cuda.max_memory_allocated() / 2**30
