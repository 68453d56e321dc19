"""Comparison of builds with their sources, for every kind of model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine_svc.build.comparison import compare, cosine, rank_correlation
from engine_svc.build.quantizer import make_quantizer
from engine_svc.build.report import Report
from engine_svc.build.sample_texts import Progress
from engine_svc.sequences import PackedBatch
from heddle.checkpoint import Checkpoint, ModelKind
from tests.engine_svc.build.quantized_folders import random_sequences, write_quantized
from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.quantized_checkpoints import vectors
from tests.engine_svc.models.trained_like import DECODERS, write_decoder
from tests.sequences import packed, sequences_of

TEXTS = [f"text {index}" for index in range(40)]


def change_weights(folder: Path, by: float) -> None:
    """Rounds all weights to multiples of `by`."""
    tensors = load_file(folder / "model.safetensors")
    rounded = {name: (own / by).round() * by if own.is_floating_point() else own for name, own in tensors.items()}
    save_file(rounded, folder / "model.safetensors")


def find_case(kind: ModelKind) -> Case:
    return next(case for case in CASES if case.kind is kind)


def run(source: Path, built: Path, *, measure_speed: bool = False, progress: Progress | None = None) -> Report:
    one, other = Checkpoint.read(source), Checkpoint.read(built)
    sequences = random_sequences(min(one.vocabulary_size, 90))
    return compare(
        *(one, other, sequences, TEXTS),
        quantization="fp8",
        device="cpu",
        dtype="float32",
        measure_speed=measure_speed,
        progress=progress,
    )


def test_vectors_of_a_quantized_decoder_are_compared_text_by_text(tmp_path: Path) -> None:
    write_decoder(tmp_path / "source", DECODERS[0])
    quantizer = make_quantizer("fp8", Checkpoint.read(tmp_path / "source"))
    write_quantized(tmp_path / "source", tmp_path / "built", quantizer)
    report = run(tmp_path / "source", tmp_path / "built", measure_speed=True)
    assert report.cosine is not None
    assert report.scores is None
    sequences = sequences_of(PackedBatch.of([random_sequences(90)]))
    folders = (tmp_path / "source", tmp_path / "built")
    theirs, ours = (vectors(Checkpoint.read(folder), packed(sequences), "no_quant", "float32") for folder in folders)
    cosines = [cosine(one, other) for one, other in zip(theirs, ours, strict=True)]
    assert report.cosine.mean == pytest.approx(np.mean(cosines), abs=1e-5)
    assert report.cosine.worst == pytest.approx(min(cosines), abs=1e-5)
    assert report.cosine.worst_text == TEXTS[int(np.argmin(cosines))]
    assert report.built.files < report.source.files
    assert report.built.memory < report.source.memory
    assert report.speed is not None
    assert min(report.speed.source, report.speed.built) > 0
    assert report.warning() is None


def test_a_model_equals_itself(tmp_path: Path) -> None:
    write_decoder(tmp_path, DECODERS[0])
    done: list[int] = []
    report = run(tmp_path, tmp_path, progress=done.append)
    assert sum(done) == 2 * len(TEXTS)
    assert report.cosine is not None
    assert report.cosine.worst == pytest.approx(1)
    assert report.source == report.built


def test_reports_do_not_depend_on_cores(tmp_path: Path) -> None:
    write_decoder(tmp_path / "source", DECODERS[0])
    write_decoder(tmp_path / "built", DECODERS[0])
    change_weights(tmp_path / "built", 0.01)
    threads = torch.get_num_threads()
    reports = []
    try:
        for cores in (1, 3):
            torch.set_num_threads(cores)
            reports.append(run(tmp_path / "source", tmp_path / "built"))
            assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(threads)
    assert reports[0] == reports[1]


@pytest.mark.parametrize("is_ranking", [True, False])
def test_scores_of_rerankers_and_classifiers_are_compared(tmp_path: Path, is_ranking: bool) -> None:
    kind = ModelKind.RERANKER if is_ranking else ModelKind.CLASSIFIER
    for name in ("source", "built"):
        find_case(kind).write(tmp_path / name)
    change_weights(tmp_path / "built", 0.2)
    report = run(tmp_path / "source", tmp_path / "built")
    assert report.cosine is None
    scores = report.scores
    assert scores is not None
    assert scores.is_ranking == is_ranking
    assert 0 < scores.mean_difference < scores.largest_difference <= 1
    assert scores.largest_text in TEXTS
    assert -1 <= scores.agreement < 1
    same = run(tmp_path / "source", tmp_path / "source").scores
    assert same is not None
    assert (same.largest_difference, same.agreement) == (0, 1)


@pytest.mark.parametrize("kind", [ModelKind.TOKEN_CLASSIFIER, ModelKind.SPARSE_EMBEDDER])
def test_outputs_of_other_kinds_are_compared(tmp_path: Path, kind: ModelKind) -> None:
    find_case(kind).write(tmp_path / "source")
    report = run(tmp_path / "source", tmp_path / "source")
    found = report.cosine.worst if report.cosine else report.scores.agreement if report.scores else 0
    assert found == pytest.approx(1)


def test_cosines_and_ranks() -> None:
    assert cosine(np.array([1.0, 0], np.float32), np.array([1.0, 1], np.float32)) == pytest.approx(0.5**0.5)
    zeros, other = np.zeros(2, np.float32), np.ones(2, np.float32)
    assert (cosine(zeros, zeros), cosine(zeros, other)) == (1.0, 0.0)
    numbers = np.array([0.1, 5, 2, 3], np.float32)
    assert rank_correlation(numbers, numbers**3) == pytest.approx(1)
    assert rank_correlation(numbers, -numbers) == pytest.approx(-1)
    assert rank_correlation(numbers[:1], numbers[:1]) == 1
