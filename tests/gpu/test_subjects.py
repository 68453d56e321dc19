"""The checkpoints that are compared on a GPU are those of the other tests, whether made or stored."""

from pathlib import Path

import numpy as np

from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.published_checkpoints import PUBLISHED
from tests.gpu.made_subjects import make_subjects
from tests.gpu.subjects import Subject, in_turns, read_subjects, store
from tests.sequences import packed, sequences_of


def test_all_parity_cases_and_published_checkpoints_are_compared() -> None:
    subjects, missing = make_subjects(is_dry=False)
    assert not missing
    assert sorted(subject.name for subject in subjects) == sorted(
        [*(case.id for case in CASES), *(published.name for published in PUBLISHED)]
    )


def test_every_architecture_comes_before_the_second_of_any() -> None:
    subjects, _ = make_subjects(is_dry=False)
    architectures = [subject.architecture for subject in subjects]
    first_round = architectures[: len(set(architectures))]
    assert len(set(first_round)) == len(first_round)


def test_a_stored_checkpoint_is_the_one_that_was_made(tmp_path: Path) -> None:
    own, _ = make_subjects(is_dry=True)
    for index, subject in enumerate(own[:2]):
        store(subject, tmp_path / "stored" / f"{index:03}")
    for subject, again in zip(own, read_subjects(tmp_path / "stored"), strict=False):
        first, second = tmp_path / f"made {subject.architecture}", tmp_path / f"read {subject.architecture}"
        first.mkdir()
        second.mkdir()
        batch, same_batch = subject.write(first), again.write(second)
        assert (again.name, again.adapter, again.pooling) == (subject.name, subject.adapter, subject.pooling)
        assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}
        assert subject.read(first).config == again.read(second).config
        assert sequences_of(same_batch) == sequences_of(batch)
        np.testing.assert_array_equal(same_batch.cu_seqlens, batch.cu_seqlens)


def test_turns_keep_the_order_within_an_architecture() -> None:
    subjects = [Subject(name[0], name, lambda _: packed([])) for name in ("a1", "a2", "a3", "b1", "c1", "c2")]
    assert [subject.name for subject in in_turns(subjects)] == ["a1", "b1", "c1", "a2", "c2", "a3"]
