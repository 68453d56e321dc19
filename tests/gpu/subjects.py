"""The checkpoints whose outputs are compared. They are made during the run (`made_subjects.py`), or read from a folder
that `python -m tests.gpu --prepare DIR` wrote, which needs no transformers.

One checkpoint of each architecture comes before the second of any, so that an interrupted run has seen all
architectures.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from engine_svc.sequences import Output, PackedBatch
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.sentence_modules import PoolingSetting
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed, sequences_of

# Names in the folder of a stored subject.
WEIGHTS, BATCH, ABOUT = "checkpoint", "batch.npz", "about.json"


class CannotBeMadeError(Exception):
    """The installed transformers has no class for it."""


@dataclass(frozen=True)
class Subject:
    architecture: str
    name: str
    write: Callable[[Path], PackedBatch]  # writes the checkpoint into an existing folder; returns a batch for it
    adapter: str = ""  # of the checkpoint's own
    pooling: PoolingSetting = "auto"

    def read(self, folder: Path) -> Checkpoint:
        return Checkpoint.read(folder, self.name, self.pooling)


def in_turns(subjects: Iterable[Subject]) -> Sequence[Subject]:
    rounds: dict[str, int] = {}
    ordered: list[tuple[int, Subject]] = []
    for subject in subjects:
        rounds[subject.architecture] = rounds.get(subject.architecture, 0) + 1
        ordered.append((rounds[subject.architecture], subject))
    return [subject for _, subject in sorted(ordered, key=lambda pair: pair[0])]


def store(subject: Subject, folder: Path) -> None:
    (folder / WEIGHTS).mkdir(parents=True)
    batch = subject.write(folder / WEIGHTS)
    np.savez(
        folder / BATCH,
        token_ids=batch.token_ids,
        type_ids=batch.type_ids,
        lengths=batch.lengths,
        output=sequences_of(batch)[0].output.value,
        has_types=any(sequence.type_ids for sequence in sequences_of(batch)),
    )
    about = {
        "architecture": subject.architecture,
        "name": subject.name,
        "adapter": subject.adapter,
        "pooling": subject.pooling,
    }
    (folder / ABOUT).write_text(json.dumps(about))


def read_subjects(folder: Path) -> Sequence[Subject]:
    """The subjects that `store` wrote, in the same order."""
    places = sorted(path.parent for path in folder.glob(f"*/{ABOUT}"))
    if not places:
        raise FileNotFoundError(f"there are no checkpoints in {folder}: python -m tests.gpu --prepare {folder}")
    return [Subject(write=partial(link, place), **json.loads((place / ABOUT).read_text())) for place in places]


def link(place: Path, folder: Path) -> PackedBatch:
    """A `Subject.write` that links the stored files instead of making them."""
    for path in (place / WEIGHTS).iterdir():
        (folder / path.name).symlink_to(path.resolve())
    return read_batch(place / BATCH)


def read_batch(path: Path) -> PackedBatch:
    with np.load(path) as arrays:
        stops = np.cumsum(arrays["lengths"])[:-1]
        ids = np.split(arrays["token_ids"].astype("<u4"), stops)
        types = np.split(arrays["type_ids"].astype(np.uint8), stops)
        has_types, output = bool(arrays["has_types"]), Output(int(arrays["output"]))
    return packed(
        [
            TokenSequence(own.tobytes(), kinds.tobytes() if has_types else b"", output=output)
            for own, kinds in zip(ids, types, strict=True)
        ]
    )
