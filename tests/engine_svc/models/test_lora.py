"""LoRA adapters: which ones of a checkpoint can be set, and sequences with different adapters in one batch. The parity
cases test the outputs of the pod's own adapter."""

import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import JinaEmbeddingsV3Model

from engine_svc.backends.loading import load_backend
from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.sequences import Output, PackedBatch
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.json_files import CheckpointError
from tests.checkpoints import write_bert
from tests.engine_svc.models.cases import Array, Reference, run_each_alone
from tests.engine_svc.models.cases_of import jina_roberta
from tests.engine_svc.models.cases_of.jina_roberta import ADAPTERS, hub_case
from tests.engine_svc.models.hub_layout import change_config
from tests.engine_svc.models.packed import ALL_LENGTHS, random_batch
from tests.sequences import packed, run_each, sequences_of

TASKS = ("", *ADAPTERS)


def load(folder: Path, adapter: str) -> None:
    load_backend(EngineSettings(adapter=adapter, dtype="float32"), Checkpoint.read(folder))


def test_unknown_adapter_is_refused_with_the_names_of_the_known(tmp_path: Path) -> None:
    jina_roberta.CASES[0].write(tmp_path)
    load(tmp_path, "separation")
    with pytest.raises(CheckpointError, match=r"no adapter cats \(adapters: retrieval.query, .*, text-matching\)"):
        load(tmp_path, "cats")


def test_adapter_of_a_checkpoint_without_any_is_refused(tmp_path: Path) -> None:
    write_bert(tmp_path)
    with pytest.raises(CheckpointError, match=r"config.json: there is no adapter separation \(it has none\)"):
        load(tmp_path, "separation")


@pytest.mark.parametrize("names", ["separation", {"separation": 0}, [1]])
def test_adapters_that_are_not_a_list_of_names_are_refused(tmp_path: Path, names: Any) -> None:
    jina_roberta.CASES[0].write(tmp_path)
    change_config(tmp_path, lora_adaptations=names)
    with pytest.raises(CheckpointError, match=r"config\.json: lora_adaptations .* is not a list of names"):
        load(tmp_path, "separation")


def test_checkpoint_that_promises_adapters_and_has_none_is_refused(tmp_path: Path) -> None:
    jina_roberta.CASES[3].write(tmp_path)
    change_config(tmp_path, lora_adaptations=jina_roberta.ADAPTERS)
    with pytest.raises(CheckpointError, match="lists LoRA adapters, but the weight files have none"):
        load(tmp_path, "separation")


def test_engine_ends_with_exit_code_2_and_one_line_before_it_listens(tmp_path: Path) -> None:
    jina_roberta.CASES[0].write(tmp_path)
    command = [sys.executable, "-m", "engine_svc", "--model", str(tmp_path), "--listen", f"unix:{tmp_path}/socket"]
    run = subprocess.run(
        [*command, "--adapter", "cats", "--log-level", "info"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 2
    assert "listening" not in run.stdout + run.stderr
    [line] = [line for line in run.stderr.splitlines() if " critical " in line]
    assert "there is no adapter cats" in line


def test_adapters_that_the_config_does_not_load_are_no_tasks(tmp_path: Path) -> None:
    jina_roberta.CASES[0].write(tmp_path)
    assert Checkpoint.read(tmp_path).tasks == tuple(jina_roberta.ADAPTERS)
    change_config(tmp_path, load_trained_adapters=False)
    assert Checkpoint.read(tmp_path).tasks == ()


def test_checkpoint_that_promises_tasks_and_has_no_adapters_is_refused(tmp_path: Path) -> None:
    jina_roberta.CASES[3].write(tmp_path)
    change_config(tmp_path, lora_adaptations=jina_roberta.ADAPTERS, load_trained_adapters=True)
    with pytest.raises(CheckpointError, match="lists LoRA adapters, but the weight files have none"):
        load(tmp_path, "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jina")


@pytest.fixture(scope="module")
def references(folder: Path) -> Mapping[str, Reference]:
    """For each task, a model with the same stored weights and this adapter."""
    cases = {task: hub_case(JinaEmbeddingsV3Model, ModelKind.EMBEDDER, task, adapter=task) for task in TASKS}
    return {task: case.write(folder) for task, case in cases.items()}


def mixed_batch(tasks: tuple[str, ...] = TASKS) -> PackedBatch:
    batch = random_batch(ALL_LENGTHS, with_types=True, output=Output.TOKEN_VECTORS)
    return packed(
        [
            dataclasses.replace(sequence, task=tasks[index % len(tasks)])
            for index, sequence in enumerate(sequences_of(batch))
        ]
    )


def compute_expected(references: Mapping[str, Reference], batch: PackedBatch, own: str = "") -> list[Array]:
    every = {task: run_each_alone(reference, batch) for task, reference in references.items()}
    return [every[sequence.task or own][index] for index, sequence in enumerate(sequences_of(batch))]


@pytest.mark.parametrize("own", ["", "retrieval.query", "text-matching"])
def test_each_sequence_has_its_adapter_or_that_of_the_pod(
    folder: Path, references: Mapping[str, Reference], own: str
) -> None:
    backend = TorchBackend(Checkpoint.read(folder), dtype="float32", device="cpu", adapter=own)
    batch = mixed_batch()
    for ours, theirs in zip(run_each(backend, batch), compute_expected(references, batch, own), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_adapters_make_a_difference(references: Mapping[str, Reference]) -> None:
    batch = random_batch([9])
    vectors = [run_each_alone(reference, batch)[0] for reference in references.values()]
    assert all(np.abs(one - other).max() > 0.1 for one, other in itertools.pairwise(vectors))


def test_sequence_alone_equals_itself_among_others(folder: Path, references: Mapping[str, Reference]) -> None:
    backend = TorchBackend(Checkpoint.read(folder), dtype="float32", device="cpu")
    batch = mixed_batch()
    together = run_each(backend, batch)
    for index, sequence in enumerate(sequences_of(batch)):
        [alone] = run_each(backend, packed([sequence]))
        np.testing.assert_allclose(together[index], alone, atol=1e-5)


def test_pass_after_one_with_adapters_has_none(folder: Path, references: Mapping[str, Reference]) -> None:
    backend = TorchBackend(Checkpoint.read(folder), dtype="float32", device="cpu")
    plain = mixed_batch(("",))
    before = run_each(backend, plain)
    run_each(backend, mixed_batch())
    for first, second in zip(before, run_each(backend, plain), strict=True):
        np.testing.assert_array_equal(first, second)


def test_sequence_without_adapter_is_the_same_beside_those_that_have_one(
    folder: Path, references: Mapping[str, Reference]
) -> None:
    backend = TorchBackend(Checkpoint.read(folder), dtype="bfloat16", device="cpu")
    plain, mixed = mixed_batch(("",)), mixed_batch()
    for index, (first, second) in enumerate(zip(run_each(backend, plain), run_each(backend, mixed), strict=True)):
        assert np.array_equal(first, second) is not bool(sequences_of(mixed)[index].task)


@pytest.mark.parametrize("own", ["", "separation"])
def test_in_bfloat16_vectors_point_where_they_should(
    folder: Path, references: Mapping[str, Reference], own: str
) -> None:
    backend = TorchBackend(Checkpoint.read(folder), dtype="bfloat16", device="cpu", adapter=own)
    batch = mixed_batch()
    for ours, theirs in zip(run_each(backend, batch), compute_expected(references, batch, own), strict=True):
        cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
        assert cosines.min() > 0.999
