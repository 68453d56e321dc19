"""Whether what the GPU computes is right: every architecture in each number format against our float32 on the CPU,
which the other tests compare with transformers; each sequence alone as in a batch; fp8 against 16 bit; kernels against
what they stand for."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.batch import PackedBatch
from heddle.checkpoint import Checkpoint
from tests.gpu import kernel_checks, offered
from tests.gpu.comparing import Array, least_cosine, relative_error
from tests.gpu.record import Row, table
from tests.gpu.running import Task
from tests.gpu.subjects import CannotBeMadeError, Subject, stored
from tests.gpu.waits import noted_waits
from tests.sequences import packed, run_each, sequences_of

ERROR_MAX = 1e-4  # relative, in float32; for both comparisons
COSINE_MIN = {"bfloat16": 0.998, "float16": 0.999}
# Alone against in a batch: a GEMM of another size may sum in another order, and results are rounded to 16 bit.
COSINE_ALONE_MIN = 0.9995
COSINE_FP8_MIN = 0.99

DTYPES = ("float32", "bfloat16", "float16")
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
    kernel_checks.run(task)
    torch.set_num_threads(1)  # more threads make such small checkpoints slower
    if not offered.has_fp8():
        task.record.add(check="fp8 against bfloat16", result=offered.NOT_BUILT)
    waits: set[str] = set()
    for subject in subjects(task):
        if task.record.seconds_left < SECONDS_KEPT:
            task.record.note(f"stopped before {subject.name}: no time left")
            break
        compare(task, subject, waits)
    task.record.add(check="where a pass waits for the device", places=sorted(waits))
    rows = [row for row in task.record.rows if "architecture" in row]
    print(table([summary_of(name, rows) for name in sorted({row["architecture"] for row in rows})]), flush=True)


def subjects(task: Task) -> Sequence[Subject]:
    if task.settings.checkpoints is not None:
        return stored(task.settings.checkpoints)
    from tests.gpu.made_subjects import made

    found, missing = made(is_dry=task.is_dry)
    for reason in missing:
        task.record.note(f"missing: {reason}; checkpoints can be made elsewhere: --prepare, --checkpoints")
    return found


def compare(task: Task, subject: Subject, waits: set[str]) -> None:
    try:
        with tempfile.TemporaryDirectory() as folder:
            batch = subject.write(Path(folder))
            checkpoint = subject.read(Path(folder))
            expected = run_each(TorchBackend(checkpoint, dtype="float32", device="cpu", adapter=subject.adapter), batch)
            model = Model(subject, checkpoint, batch, expected, waits)
            values: Row = {"architecture": subject.architecture, "name": subject.name}
            for dtype in DTYPES:
                values |= compared(task, model, dtype)
            if offered.has_fp8():
                values |= compared_fp8(task, model)
    except CannotBeMadeError as reason:
        task.record.note(f"missing: {reason}")
        return
    except Exception as error:  # noqa: BLE001 - one that cannot be run is a finding, and the others follow
        task.record.add(shown=False, architecture=subject.architecture, name=subject.name, error=str(error))
        task.record.fail(f"{subject.name}: {type(error).__name__}: {error}")
        return
    task.record.add(shown=False, **values)


def compared(task: Task, model: Model, dtype: str) -> Row:
    backend = model.backend(task.device, dtype)
    together = run_each(backend, model.batch)
    chosen = [sequences_of(model.batch)[index] for index in ALONE]
    alone = [array for sequence in chosen for array in run_each(backend, packed([sequence]))]
    in_batch = [together[index] for index in ALONE]
    with noted_waits(model.waits, task.device):
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


def compared_fp8(task: Task, model: Model) -> Row:
    theirs = run_each(model.backend(task.device, "bfloat16"), model.batch)
    ours = run_each(model.backend(task.device, "bfloat16", quantization="fp8"), model.batch)
    # Pooled, as it is served: FP8 moves single tokens of random weights further.
    pooled = [[np.atleast_2d(array).mean(0) for array in arrays] for arrays in (ours, theirs)]
    cosine = least_cosine(*pooled)
    if cosine < COSINE_FP8_MIN:
        task.record.fail(f"{model.subject.name} in fp8: cosine {cosine:.5f} to bfloat16")
    return {"cosine fp8": cosine}


def summary_of(architecture: str, rows: Sequence[Row]) -> Row:
    """One line of the printed table: the worst figures of the checkpoints of an architecture."""
    own = [row for row in rows if row["architecture"] == architecture]
    whole = [row for row in own if "error" not in row]
    summary: Row = {"architecture": architecture, "checkpoints": len(own), "broken": len(own) - len(whole)}
    for name in whole[0] if whole else ():
        if name.startswith("cosine"):
            summary[name] = f"{min(row[name] for row in whole):.5f}"
        elif name in ("error float32", "error alone float32"):
            summary[name] = f"{max(row[name] for row in whole):.1e}"
    return summary
