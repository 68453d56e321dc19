"""How fast the engine is: token ids in, vectors out in host memory, through TorchBackend.run, for random weights of the
real sizes. Beside each figure: the share of what the card's matrix products alone would allow."""

import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter

import numpy as np
import torch

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.batch import PackedBatch
from tests.gpu import offered
from tests.gpu.batches import Workload, workloads
from tests.gpu.ceilings import best_tflops, copy_gb_s
from tests.gpu.clock import Times, peak_memory, wall_times
from tests.gpu.drawn import drawn_backend
from tests.gpu.record import Row, read_rows
from tests.gpu.running import Task
from tests.gpu.shapes import ModelShape, shapes
from tests.sequences import run_each

SECONDS, SECONDS_DRY = 2.5, 0.02
# Enough passes for a p99.
SINGLES_MIN, SINGLES_MIN_DRY = 300, 5
SECONDS_KEPT = 5.0

FP8 = "fp8"


def run(task: Task) -> None:
    for shape in shapes(is_dry=task.is_dry):
        task.attempt(shape.name, partial(measure_model, task, shape, shape.dtype))
        if shape.is_decoder and not offered.has_fp8():
            task.record.add(model=shape.name, format=FP8, result=offered.NOT_BUILT)
        elif shape.is_decoder:
            task.attempt(f"{shape.name} {FP8}", partial(measure_model, task, shape, FP8))


def measure_model(task: Task, shape: ModelShape, format_: str) -> None:
    """Loads the model once and measures all workloads."""
    started = perf_counter()
    backend = drawn_backend(shape, task.device, **({"quantization": FP8} if format_ == FP8 else {}))
    task.record.note(f"{shape.name} {format_}: loaded in {perf_counter() - started:.1f} s")
    try:
        for workload in workloads(is_dry=task.is_dry):
            if task.record.seconds_left < SECONDS_KEPT:
                task.record.note(f"stopped before {shape.name} with {workload}: no time left")
                return
            measure(task, shape, format_, backend, workload)
    finally:
        backend.close()
        del backend
        gc.collect()
        if task.device == "cuda":
            torch.cuda.empty_cache()


def measure(task: Task, shape: ModelShape, format_: str, backend: TorchBackend, workload: Workload) -> None:
    batches = workload.batches(shape)
    seconds = SECONDS_DRY if task.is_dry else SECONDS
    repeats = (SINGLES_MIN_DRY if task.is_dry else SINGLES_MIN) if workload.sequences == 1 else 5
    with peak_memory(task.device) as gib:
        times = wall_times(lambda index: backend.run(batches[index % len(batches)]), seconds, repeats)
        memory = gib()
    check_vectors(task, shape, backend, batches)
    row = row_of(task, shape, format_, workload, times)
    in_pairs = seconds_in_pairs(backend, batches, seconds / 2)
    task.record.add(**row, memory_gib=round(memory, 2), tokens_s_two_threads=sum(workload.lengths()) / in_pairs)


def row_of(task: Task, shape: ModelShape, format_: str, workload: Workload, times: Times) -> Row:
    lengths = workload.lengths()
    flops = shape.linear_flops(sum(lengths))
    ceilings = read_rows(task.record.folder, "ceilings")
    ceiling = best_tflops(ceilings, shape.name, format_)
    bandwidth = copy_gb_s(ceilings)
    row: Row = {
        "model": shape.name,
        "format": format_,
        "tokens": workload.tokens,
        "sequences": workload.sequences,
        "tokens_s": sum(lengths) / times.median,
        "requests_s": len(lengths) / times.median,
        "p50_ms": times.percentile_ms(50),
        "p99_ms": times.percentile_ms(99),
        "passes": len(times.seconds),
        "tflops": (flops + shape.attention_flops(lengths)) / times.median / 1e12,
    }
    if ceiling:
        row |= {"ceiling_tflops": ceiling, "share_of_ceiling": flops / times.median / 1e12 / ceiling}
    if bandwidth and workload.sequences == 1:
        weight_bytes = shape.weights * (1 if format_ == FP8 else 2)
        row["times_of_reading_the_weights"] = times.median / (weight_bytes / bandwidth / 1e9)
    return row


def seconds_in_pairs(backend: TorchBackend, batches: Sequence[PackedBatch], seconds: float) -> float:
    """Seconds per batch with two threads: the host packs one batch while the device computes the other."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(backend.run, batches[:2]))
        count, start = 0, perf_counter()
        while count < 4 or perf_counter() - start < seconds:
            list(pool.map(backend.run, batches))
            count += len(batches)
        return (perf_counter() - start) / count


def check_vectors(task: Task, shape: ModelShape, backend: TorchBackend, batches: Sequence[PackedBatch]) -> None:
    """Guards against timing nonsense: vectors must have length 1 and differ."""
    first, second = (run_each(backend, batch)[0] for batch in batches[:2])
    if not np.allclose([np.linalg.norm(first), np.linalg.norm(second)], 1, atol=1e-3):
        task.record.fail(f"{shape.name}: vectors are not of length 1")
    if float(first @ second) > 0.9999:
        task.record.fail(f"{shape.name}: different texts have the same vector")
