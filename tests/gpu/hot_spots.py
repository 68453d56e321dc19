"""Where the time of a pass goes: the ten most expensive kernels, the number of launches, and the card's waits for
the host. It measures the two largest models, and the largest in FP8, with a full batch of long texts and a short
one."""

import gc
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from engine_svc.backends.torch_backend import TorchBackend
from tests.gpu.batches import SINGLE, Workload, workloads
from tests.gpu.random_weights import load_random_backend
from tests.gpu.record import Row, format_table
from tests.gpu.running import Task
from tests.gpu.shapes import ModelShape, shapes
from tests.gpu.starting import count_graphs, without_graphs
from tests.gpu.throughput import FP8

PASSES = 3
KERNELS_SHOWN = 10
NAME_CHARACTERS = 90
SECONDS_KEPT = 3.0


def run(task: Task) -> None:
    decoder, encoder = shapes(is_dry=task.is_dry)[:2]
    for shape, format_ in ((decoder, decoder.dtype), (decoder, FP8), (encoder, encoder.dtype)):
        if task.record.seconds_left < SECONDS_KEPT:
            task.record.note(f"stopped before {shape.name} {format_}: no time left")
            return
        task.attempt(f"{shape.name} {format_}", partial(measure_model, task, shape, format_))


def measure_model(task: Task, shape: ModelShape, format_: str) -> None:
    backend = load_random_backend(shape, task.device, **({"quantization": FP8} if format_ == FP8 else {}))
    long, single = workloads(is_dry=task.is_dry)[0], SINGLE
    measure(task, shape, format_, backend, long)
    measure(task, shape, format_, backend, single)
    if count_graphs(backend):
        with without_graphs(backend):
            measure(task, shape, format_, backend, single)
    backend.close()
    del backend
    gc.collect()
    if task.device == "cuda":
        torch.cuda.empty_cache()


def measure(task: Task, shape: ModelShape, format_: str, backend: TorchBackend, workload: Workload) -> None:
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
    kernels = sorted(list_kernels(profiler, task.device), key=lambda row: -float(row["ms"]))
    busy_ms = sum(row["ms"] for row in kernels)
    case: Row = {"model": shape.name, "format": format_, "tokens": workload.tokens, "sequences": workload.sequences}
    case["graphs"] = count_graphs(backend)
    task.record.add(
        what="pass",
        **case,
        wall_ms=1e3 * wall_s / PASSES,
        device_busy_ms=busy_ms,
        kernels=sum(row["calls"] for row in kernels),
    )
    for row in kernels[:KERNELS_SHOWN]:
        task.record.add(shown=False, what="kernel", **case, share=row["ms"] / busy_ms, **row)
    print(format_table(kernels[:KERNELS_SHOWN]), flush=True)


def activities(device: str) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]


def list_kernels(profiler: Any, device: str) -> list[Row]:
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
