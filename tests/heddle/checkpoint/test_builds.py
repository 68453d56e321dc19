"""Folders that `heddle build` made are checked, and have the commit of their source."""

from pathlib import Path

import pytest

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.model_source import locate
from tests.heddle.artifacts.artifact import write_artifact
from tests.kinds import write_classifier

COMMIT = "c" * 40


@pytest.fixture
def build(tmp_path: Path) -> Path:
    write_classifier(tmp_path / "build")
    write_artifact(tmp_path / "build", {"model.safetensors": b"weights"})
    return tmp_path / "build"


def test_a_build_is_a_model_folder_with_the_commit_of_its_source(build: Path) -> None:
    assert locate(str(build)) == locate(str(build), COMMIT) == build
    assert Checkpoint.read(build).revision == COMMIT
    with pytest.raises(CheckpointError, match="has no revision main"):
        locate(str(build), "main")


def test_an_incomplete_build_is_refused(build: Path) -> None:
    (build / "model.safetensors").write_bytes(b"weig")
    with pytest.raises(CheckpointError, match=r"model\.safetensors has 4 bytes, not 7"):
        locate(str(build))


def test_a_manifest_of_another_tool_is_ignored(build: Path) -> None:
    (build / "manifest.json").write_text('{"version": 3}')
    (build / "model.safetensors").write_bytes(b"weig")
    assert locate(str(build)) == build
    assert Checkpoint.read(build).revision == ""
