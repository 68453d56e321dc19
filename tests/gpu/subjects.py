"""The checkpoints whose outputs are compared: every parity case and every published checkpoint, made small, one of each
architecture before the second of any, so that a run that is cut off has seen all architectures."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine_svc.batch import PackedBatch
from heddle.checkpoint import Checkpoint
from tests.engine_svc.models import published_batches, published_references
from tests.engine_svc.models.cases import OUTPUTS, Case
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.packed import random_batch
from tests.engine_svc.models.published_checkpoints import PUBLISHED, Published


@dataclass(frozen=True)
class Subject:
    architecture: str
    name: str
    adapter: str
    write: Callable[[Path], tuple[Checkpoint, PackedBatch]]  # into an empty folder; and a batch for it


def of_case(case: Case) -> Subject:
    def write(folder: Path) -> tuple[Checkpoint, PackedBatch]:
        case.write(folder)
        checkpoint = Checkpoint.read(folder)
        batch = random_batch(
            case.lengths,
            with_types=case.has_types,
            output=OUTPUTS[case.kind],
            vocabulary_size=checkpoint.vocabulary_size,
        )
        return checkpoint, batch

    return Subject(case.architecture, case.id, case.adapter, write)


def of_published(published: Published) -> Subject:
    def write(folder: Path) -> tuple[Checkpoint, PackedBatch]:
        published_references.write(published, folder)
        checkpoint = Checkpoint.read(folder, published.name, published.pooling)
        return checkpoint, published_batches.random_batch(published, checkpoint)

    return Subject(published.row, published.name, published.adapter, write)


def subjects() -> Sequence[Subject]:
    return in_turns([*map(of_case, CASES), *map(of_published, PUBLISHED)])


def in_turns(subjects: Iterable[Subject]) -> Sequence[Subject]:
    rounds: dict[str, int] = {}
    ordered: list[tuple[int, Subject]] = []
    for subject in subjects:
        rounds[subject.architecture] = rounds.get(subject.architecture, 0) + 1
        ordered.append((rounds[subject.architecture], subject))
    return [subject for _, subject in sorted(ordered, key=lambda pair: pair[0])]
