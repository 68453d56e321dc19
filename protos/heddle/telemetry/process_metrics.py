"""Metrics of every service: its version and model, the lag of its event loop, the time of garbage collection, and the
memory limit. Made by the start of each service."""

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from heddle.machine import memory_limit
from heddle.telemetry.metrics import Distribution, counter, gauge, histogram

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

    from heddle.v1 import model_pb2

LAG_INTERVAL_S = 0.25

INFO_LABELS = ("model", "device", "dtype", "backend")

BUILD_INFO = gauge("heddle_build_info", "Always 1; the labels describe the service", "service", "version", *INFO_LABELS)
LOOP_LAG = histogram("heddle_process_event_loop_lag_seconds", "How late the event loop runs scheduled work")
MEMORY_MAX = gauge("heddle_process_memory_max_bytes", "Memory limit of the container; absent if there is none")
GC_SECONDS = counter("heddle_process_gc_seconds_total", "Time that garbage collection has taken")


def model_labels(model: "model_pb2.Model") -> Mapping[str, str]:
    """The labels of an engine's model. Their values are empty until the model is known."""
    return {"model": model.name, "device": model.device, "dtype": model.data_type, "backend": model.backend}


class ProcessMetrics:
    def __init__(self, service: str, describe: Callable[[], Mapping[str, str]]) -> None:
        """`describe` returns the values of INFO_LABELS that are known. It is called at each reading."""
        self._service = service
        self._describe = describe
        self._lag = Distribution()
        self._gc_s = 0.0
        self._gc_began = 0.0
        self._memory_max = memory_limit()

    @contextlib.contextmanager
    def measure(self) -> Iterator[None]:
        """Measures inside the block, on the running event loop."""
        gc.callbacks.append(self._on_gc)
        measuring = asyncio.create_task(self._measure_lag())
        try:
            yield
        finally:
            measuring.cancel()
            gc.callbacks.remove(self._on_gc)

    def collect(self) -> Iterable["Family"]:
        known = self._describe()
        labels = (self._service, version("heddle"), *(known.get(name, "") for name in INFO_LABELS))
        yield BUILD_INFO.of({labels: 1})
        yield LOOP_LAG.of(self._lag)
        yield GC_SECONDS.of(self._gc_s)
        yield MEMORY_MAX.of({} if self._memory_max is None else self._memory_max)

    async def _measure_lag(self) -> None:
        while True:
            due = time.monotonic() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            self._lag.observe(max(0.0, time.monotonic() - due))

    def _on_gc(self, phase: str, _: dict[str, Any]) -> None:
        if phase == "start":
            self._gc_began = time.perf_counter()
        else:
            self._gc_s += time.perf_counter() - self._gc_began
