"""Checks the GPU's results: every architecture in each number format against Heddle's float32 on the CPU, which
other tests compare with transformers; each sequence alone and in a batch; FP8 and FP4 against 16 bit; kernels
against their plain versions."""

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.device import is_decoder
from engine_svc.sequences import PackedBatch
from heddle.checkpoint import Checkpoint
from tests.gpu import kernel_checks
from tests.gpu.attention_kernels import record_choices
from tests.gpu.comparing import Array, least_cosine, relative_error
from tests.gpu.record import Row, format_table
from tests.gpu.running import Task
from tests.gpu.starting import without_capture
from tests.gpu.subjects import CannotBeMadeError, Subject, read_subjects
from tests.gpu.waits import record_waits
from tests.gpu.workers import share
from tests.sequences import packed, run_each, sequences_of

ERROR_MAX = 1e-4  # relative, in float32; for both comparisons
COSINE_MIN = {"bfloat16": 0.998, "float16": 0.999}
# Alone against in a batch: a GEMM of another size may sum in another order, and results are rounded to 16 bit.
COSINE_ALONE_MIN = 0.9995
# FP4 is less exact on random weights. Small decoders that behave like trained ones reach 0.98.
COSINE_QUANTIZED_MIN = {"fp8": 0.99, "fp4": 0.9}

DTYPES = ("float32", "bfloat16", "float16")
DTYPES_WITH_GRAPHS = ("bfloat16",)
ALONE = (0, 2, 4)  # indices of the sequences that are run alone
# The comparison stops this long before the limit, to print its table.
SECONDS_KEPT = 10.0


@dataclass(frozen=True)
class Model:
    """A checkpoint on disk, a batch for it, and the outputs in float32 on the CPU."""

    subject: Subject
    checkpoint: Checkpoint
    batch: PackedBatch
    expected: Sequence[Array]
    waits: set[str]  # lines of code at which its passes wait for the device

    def backend(self, device: str, dtype: str, **settings: Any) -> TorchBackend:
        return TorchBackend(self.checkpoint, dtype=dtype, device=device, adapter=self.subject.adapter, **settings)


def run(task: Task) -> None:
    torch.set_num_threads(1)  # more threads make such small checkpoints slower
    checks = kernel_checks.list_checks(task)
    models = [(subject.name, partial(compare, subject)) for subject in subjects(task)]
    share(task, [*checks, *models], seconds_kept=SECONDS_KEPT)
    rows = [row for row in task.record.rows if "architecture" in row]
    task.record.add(check="compared", kernels=len(task.record.rows) - len(rows), checkpoints=len(rows))
    waits = sorted({place for row in rows for place in row.get("waits", ())})
    task.record.add(check="where a pass waits for the device", places=waits)
    print(format_table([summarize(name, rows) for name in sorted({row["architecture"] for row in rows})]), flush=True)


def subjects(task: Task) -> Sequence[Subject]:
    if task.settings.checkpoints is not None:
        return read_subjects(task.settings.checkpoints)
    from tests.gpu.made_subjects import make_subjects

    found, missing = make_subjects(is_dry=task.is_dry)
    for reason in missing:
        task.record.note(f"missing: {reason}; checkpoints can be made elsewhere: --prepare, --checkpoints")
    return found


def compare(subject: Subject, task: Task) -> None:
    values: Row = {"architecture": subject.architecture, "name": subject.name}
    waits: set[str] = set()
    attention: set[str] = set()
    try:
        with tempfile.TemporaryDirectory() as folder, record_choices(attention):
            batch = subject.write(Path(folder))
            checkpoint = subject.read(Path(folder))
            expected = run_each(TorchBackend(checkpoint, dtype="float32", device="cpu", adapter=subject.adapter), batch)
            model = Model(subject, checkpoint, batch, expected, waits)
            for dtype in DTYPES:
                values |= compare_dtype(task, model, dtype)
            if is_decoder(checkpoint):  # others are not served quantized
                values |= compare_quantized(task, model)
    except CannotBeMadeError as reason:
        task.record.note(f"missing: {reason}")
        return
    except Exception as error:
        task.record.add(shown=False, **values, error=str(error))
        raise
    task.record.add(shown=False, **values, waits=sorted(waits), attention=sorted(attention))


def compare_dtype(task: Task, model: Model, dtype: str) -> Row:
    # Capturing takes most of the time of loading such a small model.
    with contextlib.nullcontext() if dtype in DTYPES_WITH_GRAPHS else without_capture():
        backend = model.backend(task.device, dtype)
    together = run_each(backend, model.batch)
    chosen = [sequences_of(model.batch)[index] for index in ALONE]
    alone = [array for sequence in chosen for array in run_each(backend, packed([sequence]))]
    in_batch = [together[index] for index in ALONE]
    with record_waits(model.waits, task.device):
        run_each(backend, model.batch)
    error, cosine = relative_error(together, model.expected), least_cosine(together, model.expected)
    error_alone, cosine_alone = relative_error(alone, in_batch), least_cosine(alone, in_batch)
    name = model.subject.name
    if dtype == "float32":
        if error > ERROR_MAX:
            task.record.fail(f"{name} in {dtype}: {error:.1e} from the CPU's")
        if error_alone > ERROR_MAX:
            task.record.fail(f"{name} in {dtype}: {error_alone:.1e} between alone and in a batch")
    else:
        if cosine < COSINE_MIN[dtype]:
            task.record.fail(f"{name} in {dtype}: cosine {cosine:.5f} to the CPU's float32")
        if cosine_alone < COSINE_ALONE_MIN:
            task.record.fail(f"{name} in {dtype}: cosine {cosine_alone:.5f} between alone and in a batch")
    return {
        f"error {dtype}": error,
        f"cosine {dtype}": cosine,
        f"error alone {dtype}": error_alone,
        f"cosine alone {dtype}": cosine_alone,
    }


def compare_quantized(task: Task, model: Model) -> Row:
    found: Row = {}
    with without_capture():
        theirs = run_each(model.backend(task.device, "bfloat16"), model.batch)
        for quantization, least in COSINE_QUANTIZED_MIN.items():
            ours = run_each(model.backend(task.device, "bfloat16", quantization=quantization), model.batch)
            # Pooled, as it is served: single tokens of random weights move further.
            pooled = [[np.atleast_2d(array).mean(0) for array in arrays] for arrays in (ours, theirs)]
            found[f"cosine {quantization}"] = cosine = least_cosine(*pooled)
            if cosine < least:
                task.record.fail(f"{model.subject.name} in {quantization}: cosine {cosine:.5f} to bfloat16")
    return found


def summarize(architecture: str, rows: Sequence[Row]) -> Row:
    """Returns one line of the printed table: the worst figures of the checkpoints of an architecture."""
    own = [row for row in rows if row["architecture"] == architecture]
    whole = [row for row in own if "error" not in row]
    summary: Row = {"architecture": architecture, "checkpoints": len(own), "broken": len(own) - len(whole)}
    for name, (worst, form) in COLUMNS.items():
        figures = [row[name] for row in whole if name in row]
        summary[name] = form.format(worst(figures)) if figures else ""
    return summary


COLUMNS: Mapping[str, tuple[Callable[[list[float]], float], str]] = {
    **{f"error{of} float32": (max, "{:.1e}") for of in ("", " alone")},
    **{f"cosine{of} {dtype}": (min, "{:.5f}") for dtype in DTYPES[1:] for of in ("", " alone")},
    **{f"cosine {quantization}": (min, "{:.5f}") for quantization in COSINE_QUANTIZED_MIN},
}
