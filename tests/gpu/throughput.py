"""The speed of the engine from token ids to vectors in host memory, through TorchBackend.run, for random weights of
the real sizes. Each figure comes with its share of what the card's matrix products alone would allow."""

import gc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch

from engine_svc.backends.cuda_graphs import BUCKETS_OF_TOKENS
from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.sequences import PackedBatch
from tests.gpu.attention_kernels import find_kernels
from tests.gpu.batches import Workload, workloads
from tests.gpu.ceilings import best_tflops, copy_gb_s
from tests.gpu.clock import Times, measure_wall_times, track_peak_memory
from tests.gpu.comparing import least_cosine
from tests.gpu.random_weights import load_random_backend
from tests.gpu.record import Row, read_rows
from tests.gpu.running import Task
from tests.gpu.shapes import ModelShape, shapes
from tests.gpu.starting import count_compilations, count_graphs, without_graphs
from tests.sequences import run_each

SECONDS, SECONDS_DRY = 1.5, 0.02
# Enough passes for a p99.
SINGLES_MIN, SINGLES_MIN_DRY = 300, 5
SECONDS_KEPT = 5.0

FP8 = "fp8"

Vectors = Sequence[np.ndarray[Any, np.dtype[np.float32]]]


@dataclass(frozen=True)
class PassTimes:
    alone: Times  # one pass after the other
    in_flight: float  # seconds per pass, with two in flight


def run(task: Task) -> None:
    for shape in shapes(is_dry=task.is_dry):
        vectors: dict[str, Vectors] = {}  # of one batch, by format
        for format_ in (shape.dtype, FP8) if shape.is_decoder else (shape.dtype,):
            task.attempt(f"{shape.name} {format_}", partial(measure_model, task, shape, format_, vectors))
        if len(vectors) > 1:
            cosine = least_cosine(vectors[FP8], vectors[shape.dtype])
            task.record.add(model=shape.name, what=f"cosine of {FP8} to {shape.dtype}, random weights", cosine=cosine)


def measure_model(task: Task, shape: ModelShape, format_: str, vectors: dict[str, Vectors]) -> None:
    """Loads the model once and measures all workloads."""
    backend = load_backend(task, shape, format_)
    try:
        for workload in workloads(is_dry=task.is_dry):
            if task.record.seconds_left < SECONDS_KEPT:
                task.record.note(f"stopped before {shape.name} {format_} with {workload}: no time left")
                return
            batches = workload.batches(shape)
            vectors.setdefault(format_, run_each(backend, batches[0]))
            measure(task, shape, format_, backend, workload)
    finally:
        backend.close()
        del backend
        gc.collect()
        if task.device == "cuda":
            torch.cuda.empty_cache()


def load_backend(task: Task, shape: ModelShape, format_: str) -> TorchBackend:
    started = perf_counter()
    with count_compilations() as compilations:
        backend = load_random_backend(shape, task.device, **({"quantization": FP8} if format_ == FP8 else {}))
    seconds, graphs = perf_counter() - started, count_graphs(backend)
    device, dtype = torch.device(task.device), getattr(torch, shape.dtype)
    task.record.add(
        model=shape.name,
        format=format_,
        what="start",
        seconds=seconds,
        triton_kernels=compilations.count,
        triton_seconds=compilations.seconds,
        graphs=graphs,
        attention=next(iter(find_kernels(device, dtype, shape.head_dim, AttentionPattern()))),
    )
    if task.device == "cuda" and not graphs:
        task.record.fail(f"{shape.name} {format_}: no CUDA graphs")
    return backend


def measure(task: Task, shape: ModelShape, format_: str, backend: TorchBackend, workload: Workload) -> None:
    batches = workload.batches(shape)
    seconds = SECONDS_DRY if task.is_dry else SECONDS
    repeats = (SINGLES_MIN_DRY if task.is_dry else SINGLES_MIN) if workload.sequences == 1 else 5
    run_nth = run_in_rotation(backend, batches)
    with track_peak_memory(task.device) as gib:
        times = measure_wall_times(run_nth, seconds, repeats)
        pass_times = PassTimes(times, time_two_in_flight(run_nth, seconds / 2))
        memory = gib()
    check_vectors(task, shape, backend, batches)
    row = make_row(task, shape, format_, workload, pass_times) | {"memory_gib": round(memory, 2)}
    if sum(workload.lengths()) <= BUCKETS_OF_TOKENS[-1]:
        with without_graphs(backend):
            plain = measure_wall_times(run_nth, seconds / 4)
        row |= {"p50_ms_without_graphs": plain.percentile_ms(50), "graphs_over_none": plain.median / times.median}
    task.record.add(**row)


def run_in_rotation(backend: TorchBackend, batches: Sequence[PackedBatch]) -> Callable[[int], object]:
    return lambda index: backend.run(batches[index % len(batches)])


def make_row(task: Task, shape: ModelShape, format_: str, workload: Workload, pass_times: PassTimes) -> Row:
    """Rates are those of the engine, which has two passes in flight; p50 and p99 are those of one pass alone."""
    lengths, times, in_flight = workload.lengths(), pass_times.alone, pass_times.in_flight
    flops = shape.linear_flops(sum(lengths))
    ceilings = read_rows(task.record.folder, "ceilings")
    ceiling = best_tflops(ceilings, shape.name, format_)
    bandwidth = copy_gb_s(ceilings)
    row: Row = {
        "model": shape.name,
        "format": format_,
        "tokens": workload.tokens,
        "sequences": workload.sequences,
        "tokens_s": sum(lengths) / in_flight,
        "requests_s": len(lengths) / in_flight,
        "two_passes_over_one": times.median / in_flight,
        "p50_ms": times.percentile_ms(50),
        "p99_ms": times.percentile_ms(99),
        "passes": len(times.seconds),
        "tflops": (flops + shape.attention_flops(lengths)) / in_flight / 1e12,
    }
    if ceiling:
        row |= {"ceiling_tflops": ceiling, "share_of_ceiling": flops / in_flight / 1e12 / ceiling}
    if bandwidth and workload.sequences == 1:
        weight_bytes = shape.weights * (1 if format_ == FP8 else 2)
        row["times_of_reading_the_weights"] = times.median / (weight_bytes / bandwidth / 1e9)
    return row


def time_two_in_flight(run_nth: Callable[[int], object], seconds: float) -> float:
    """Seconds per pass with two threads, as the engine has: the host packs and launches one while the device computes
    the other."""
    start = perf_counter()

    def run_until_the_end(first: int) -> int:
        count = 0
        while count < 2 or perf_counter() - start < seconds:
            run_nth(first + 2 * count)
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        passes = sum(pool.map(run_until_the_end, (0, 1)))
    return (perf_counter() - start) / passes


def check_vectors(task: Task, shape: ModelShape, backend: TorchBackend, batches: Sequence[PackedBatch]) -> None:
    """Guards against meaningless timings: vectors must have length 1 and differ."""
    first, second = (run_each(backend, batch)[0] for batch in batches[:2])
    if not np.allclose([np.linalg.norm(first), np.linalg.norm(second)], 1, atol=1e-3):
        task.record.fail(f"{shape.name}: vectors are not of length 1")
    if float(first @ second) > 0.9999:
        task.record.fail(f"{shape.name}: different texts have the same vector")
