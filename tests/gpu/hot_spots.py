"""Where the time of a pass goes: the ten kernels that take most of it, and how long the card waits for the host. For
the two largest models, at the lengths that fill a batch."""

import gc
from functools import partial
from time import perf_counter
from typing import Any

from torch.profiler import ProfilerActivity, profile

from tests.gpu.batches import workloads
from tests.gpu.drawn import drawn_backend
from tests.gpu.record import Row, table
from tests.gpu.running import Task
from tests.gpu.shapes import ModelShape, shapes

PASSES = 3
KERNELS_SHOWN = 10
NAME_CHARACTERS = 90
SECONDS_KEPT = 3.0


def run(task: Task) -> None:
    for shape in shapes(is_dry=task.is_dry)[:2]:
        if task.record.seconds_left < SECONDS_KEPT:
            task.record.note(f"stopped before {shape.name}: no time left")
            return
        task.attempt(shape.name, partial(measure, task, shape))


def measure(task: Task, shape: ModelShape) -> None:
    backend = drawn_backend(shape, task.device)
    workload = workloads(is_dry=task.is_dry)[0]
    batches = workload.batches(shape)
    for batch in batches:
        backend.run(batch)
    start = perf_counter()
    for batch in batches[:PASSES]:
        backend.run(batch)
    wall_s = perf_counter() - start
    with profile(activities=activities(task.device)) as profiler:
        for batch in batches[:PASSES]:
            backend.run(batch)
    kernels = sorted(kernels_of(profiler, task.device), key=lambda row: -float(row["ms"]))
    busy_s = sum(row["ms"] for row in kernels) * PASSES / 1e3
    task.record.add(
        what="pass",
        model=shape.name,
        format=shape.dtype,
        tokens=workload.tokens,
        sequences=workload.sequences,
        wall_ms=1e3 * wall_s / PASSES,
        device_busy_ms=1e3 * busy_s / PASSES,
        kernels=sum(row["calls"] for row in kernels),
    )
    for row in kernels[:KERNELS_SHOWN]:
        task.record.add(shown=False, what="kernel", model=shape.name, share=row["ms"] * PASSES / 1e3 / busy_s, **row)
    print(table(kernels[:KERNELS_SHOWN]), flush=True)
    backend.close()
    del backend
    gc.collect()


def activities(device: str) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]


def kernels_of(profiler: Any, device: str) -> list[Row]:
    """Time and calls per pass of each CUDA kernel; of each CPU operation in a dry run."""
    time_of = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    return [
        {
            "ms": getattr(event, time_of) / 1e3 / PASSES,
            "calls": event.count / PASSES,
            "kernel": event.key[:NAME_CHARACTERS],
        }
        for event in profiler.key_averages()
        if event.device_type.name == device.upper() and getattr(event, time_of) > 0
    ]
