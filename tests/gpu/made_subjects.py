"""Every parity case and every published checkpoint, made small by the tests of the models with transformers.
Families that this version of transformers lacks are left out and named."""

import importlib
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from engine_svc.sequences import PackedBatch
from heddle.checkpoint import Checkpoint
from tests.engine_svc.models import published_references
from tests.engine_svc.models.cases import OUTPUTS, Case
from tests.engine_svc.models.packed import random_batch
from tests.engine_svc.models.published_checkpoints import PUBLISHED, Published
from tests.gpu.subjects import CannotBeMadeError, Subject, in_turns, read_subjects, store

FAMILIES = Path(__file__).parents[1] / "engine_svc" / "models" / "cases_of"

# The dry run takes these: six architectures, encoders and decoders.
FEW = slice(0, 24, 4)


def make_subjects(*, is_dry: bool) -> tuple[Sequence[Subject], Sequence[str]]:
    """Returns the subjects, and one line for each family that could not be imported."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    cases, missing = load_cases()
    subjects = in_turns([*map(make_case_subject, cases), *map(make_published_subject, PUBLISHED)])
    return subjects[FEW] if is_dry else subjects, missing


def load_cases() -> tuple[list[Case], list[str]]:
    cases: list[Case] = []
    missing: list[str] = []
    for path in sorted(FAMILIES.glob("*.py")):
        if path.stem == "all":
            continue
        try:
            family = importlib.import_module(f"tests.engine_svc.models.cases_of.{path.stem}")
        except ImportError as error:
            missing.append(f"{path.stem}: {read_reason(error)}")
        else:
            cases += getattr(family, "CASES", [])
    return cases, missing


def read_reason(error: ImportError) -> str:
    return error.msg.partition(" (")[0]


def make_case_subject(case: Case) -> Subject:
    def write(folder: Path) -> PackedBatch:
        case.write(folder)
        vocabulary = Checkpoint.read(folder).vocabulary_size
        output = OUTPUTS[case.kind]
        return random_batch(case.lengths, with_types=case.has_types, output=output, vocabulary_size=vocabulary)

    return Subject(case.architecture, case.id, write, case.adapter)


def make_published_subject(published: Published) -> Subject:
    def write(folder: Path) -> PackedBatch:
        try:
            published_references.write(published, folder)
        except ImportError as error:
            raise CannotBeMadeError(f"{published.name}: {read_reason(error)}") from None
        checkpoint = Checkpoint.read(folder, published.name, published.pooling)
        return published_references.random_batch(published, checkpoint)

    return Subject(published.row, published.name, write, published.adapter, published.pooling)


def prepare(folder: Path, *, is_dry: bool) -> None:
    """Writes all checkpoints into the folder, for --checkpoints."""
    torch.set_num_threads(1)  # more threads make such small checkpoints slower
    subjects, reasons = make_subjects(is_dry=is_dry)
    missing = list(reasons)
    for index, subject in enumerate(subjects):
        try:
            store(subject, folder / f"{index:03}")
        except CannotBeMadeError as error:
            missing.append(str(error))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{len(read_subjects(folder))} checkpoints in {folder}, {size / 2**20:.0f} MiB")
    for reason in missing:
        print(f"missing: {reason}")
