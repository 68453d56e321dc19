"""Runs one build: calibrates, plans, writes, compares, and adds the manifest.

`heddle.cli.building` prepares a job without torch, then calls this.
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from engine_svc.build.artifact import ArtifactPlan
from engine_svc.build.calibration import calibrate
from engine_svc.build.comparison import compare
from engine_svc.build.configuration import Configuration
from engine_svc.build.quantizer import Quantizer, check_quantizable, make_quantizer, needs_calibration
from engine_svc.build.report import Report
from engine_svc.build.sample_texts import SampleTexts, TokenColumns, join_tokens
from heddle.artifacts.manifest import FORMAT_VERSION, FileEntry, Manifest, Source, describe_files, write_manifest
from heddle.checkpoint import Checkpoint
from heddle.progress import Progress, spelled_size
from heddle.quantization import NO_QUANT
from heddle.rpc.settings import ConfigurationError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    root: Path
    checkpoint: Checkpoint  # read from `root`
    configuration: Configuration
    model: str  # name or address, for the manifest
    sources: Sequence[FileEntry]
    settings: Mapping[str, Any]  # for the manifest
    data_type: str  # float32, bfloat16, float16, or "" to keep the stored types
    quantization: str
    samples: SampleTexts | None  # None without quantization
    compares: bool  # add a report to the manifest, if there are samples
    tokenize: Callable[[Sequence[str]], TokenColumns]
    file_bytes_max: int | None
    gpus: int  # how many calibrate and quantize, if there are as many; 0 = the CPU
    cores: int


def run(job: Job, output: Path) -> Report | None:
    """Fills the empty folder `output`. Returns the comparison with the source, or None. Raises ConfigurationError for
    an impossible job, and OSError if writing fails."""
    warn_of_missing_gpus(job)
    plan = ArtifactPlan.of(
        job.root,
        job.checkpoint,
        job.configuration,
        data_type=job.data_type,
        quantizer=make_job_quantizer(job),
        file_bytes_max=job.file_bytes_max,
    )
    check_space(output, plan.weight_bytes)
    label = "converting" if job.quantization == NO_QUANT else f"quantizing to {job.quantization}"
    with Progress(label, plan.stored_bytes) as progress:
        plan.write(output, list_devices(job), progress.add)
    report = compare_with_source(job, output)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        heddle_version=version("heddle"),
        source=Source(job.model, job.checkpoint.revision, tuple(job.sources)),
        settings=dict(job.settings),
        report=report.to_json() if report else None,
        files=describe_files(output),
    )
    write_manifest(output, manifest)
    return report


def count_gpus(job: Job) -> int:
    return min(job.gpus, torch.cuda.device_count()) if job.gpus else 0


def warn_of_missing_gpus(job: Job) -> None:
    if (found := count_gpus(job)) < job.gpus:
        place = f"{found} calibrate and quantize" if found else "the CPU calibrates and quantizes"
        log.warning("%d GPUs are wanted for the build, but PyTorch sees %d: %s", job.gpus, found, place)


def make_job_quantizer(job: Job) -> Quantizer | None:
    if job.quantization == NO_QUANT:
        return None
    if not needs_calibration(job.quantization):
        return make_quantizer(job.quantization, job.checkpoint)
    check_quantizable(job.quantization, job.checkpoint)  # fails before a calibration that may take hours
    assert job.samples is not None
    _, sequences = join_tokens(job.samples.calibration, job.tokenize(job.samples.calibration))
    devices = [f"cuda:{index}" for index in range(count_gpus(job))] or ["cpu"]
    with Progress("calibrating", len(sequences), unit="texts") as progress:
        calibration = calibrate(job.checkpoint, sequences, devices=devices, cores=job.cores, progress=progress.add)
    return make_quantizer(job.quantization, job.checkpoint, calibration)


def compare_with_source(job: Job, output: Path) -> Report | None:
    if job.samples is None or not job.compares:
        return None
    texts, sequences = join_tokens(job.samples.held_out, job.tokenize(job.samples.held_out))
    with Progress("comparing with the source", 2 * len(texts), unit="texts") as progress:
        return compare(
            job.checkpoint,
            Checkpoint.read(output),
            sequences,
            texts,
            quantization=job.quantization,
            device="cuda:0" if count_gpus(job) else "cpu",
            cores=job.cores,
            measure_speed=True,
            progress=progress.add,
        )


def list_devices(job: Job) -> list[torch.device]:
    """Returns a device for each thread. Two threads share a GPU: one reads and writes while the other computes."""
    gpus = [torch.device("cuda", index) for index in range(count_gpus(job))]
    return 2 * gpus or [torch.device("cpu")] * job.cores


def check_space(output: Path, needed: int) -> None:
    free = shutil.disk_usage(output).free
    if needed > free:
        raise ConfigurationError(
            f"no space is left in {output.parent}: {spelled_size(needed)} are needed, and {spelled_size(free)} are free"
        )
