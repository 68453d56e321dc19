"""Which adapters of a checkpoint can be set, and the errors for others. The parity cases test the outputs of the pod's
own adapter, test_low_rank those of sequences with different adapters."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine_svc.backends.loading import load_backend
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from tests.checkpoints import write_bert
from tests.engine_svc.models.cases_of import jina_roberta


def load(folder: Path, adapter: str) -> None:
    load_backend(EngineSettings(adapter=adapter, dtype="float32"), Checkpoint.read(folder))


def test_unknown_adapter_is_answered_with_the_names_of_those_there_are(tmp_path: Path) -> None:
    jina_roberta.CASES[0].write(tmp_path)
    load(tmp_path, "separation")
    with pytest.raises(CheckpointError, match=r"no adapter cats \(there are: retrieval.query, .*, text-matching\)"):
        load(tmp_path, "cats")


def test_adapter_of_a_checkpoint_without_any_is_refused(tmp_path: Path) -> None:
    write_bert(tmp_path)
    with pytest.raises(CheckpointError, match=r"config.json: there is no adapter separation \(there are none\)"):
        load(tmp_path, "separation")


@pytest.mark.parametrize("names", ["separation", {"separation": 0}, [1]])
def test_adapters_that_are_not_a_list_of_names_are_refused(tmp_path: Path, names: Any) -> None:
    jina_roberta.CASES[0].write(tmp_path)
    jina_roberta.write_setting(tmp_path, lora_adaptations=names)
    with pytest.raises(CheckpointError, match=r"config\.json: lora_adaptations .* is not a list of names"):
        load(tmp_path, "separation")


def test_checkpoint_that_promises_adapters_and_has_none_is_refused(tmp_path: Path) -> None:
    jina_roberta.CASES[3].write(tmp_path)
    jina_roberta.write_setting(tmp_path, lora_adaptations=jina_roberta.ADAPTERS)
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
    [line] = run.stderr.splitlines()
    assert "there is no adapter cats" in line


def test_adapters_that_the_config_does_not_load_are_no_tasks(tmp_path: Path) -> None:
    jina_roberta.CASES[0].write(tmp_path)
    assert Checkpoint.read(tmp_path).tasks == tuple(jina_roberta.ADAPTERS)
    jina_roberta.write_setting(tmp_path, load_trained_adapters=False)
    assert Checkpoint.read(tmp_path).tasks == ()


def test_checkpoint_that_promises_tasks_and_has_no_adapters_is_refused(tmp_path: Path) -> None:
    jina_roberta.CASES[3].write(tmp_path)
    jina_roberta.write_setting(tmp_path, lora_adaptations=jina_roberta.ADAPTERS, load_trained_adapters=True)
    with pytest.raises(CheckpointError, match="lists LoRA adapters, but the weight files have none"):
        load(tmp_path, "")
