"""`locate` finds the folder of a model: a folder, the packaged model, or one in the hub's cache."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.model_source import locate
from tests.checkpoints import write_json, write_old_modules
from tests.heddle.checkpoint.bert_folder import CONFIG


def test_folder_is_its_own_location(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("model", ["/no/such/folder", "./nowhere", "a/b/c"])
def test_missing_folder_is_not_searched_on_the_hub(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heddle.checkpoint.model_source.download", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match="there is no model folder"):
        locate(model)


def test_tokenizer_downloads_the_files_that_show_the_kinds_of_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def snapshot_download(name: str, **wishes: Any) -> str:
        fetched.extend(wishes["allow_patterns"])
        return "."

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    locate("BAAI/bge-m3", with_weights=False)
    assert {"sparse_linear.pt", "colbert_linear.pt"} < set(fetched)
    assert "*.safetensors" not in fetched


def test_a_folder_has_no_revision_but_its_own_name(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert locate(str(snapshot), "abc") == snapshot
    with pytest.raises(CheckpointError, match="has no revision def"):
        locate(str(snapshot), "def")


def test_empty_name_is_rejected() -> None:
    with pytest.raises(CheckpointError, match="name of the model is empty"):
        locate("")


def test_file_is_not_a_model_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        locate(str(tmp_path / "config.json"))


def test_failed_download_is_reported_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="nobody/nothing") as caught:
        locate("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_hub_cache_takes_precedence_over_the_packaged_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    asked: list[str] = []

    def download(name: str, *_: object) -> Path:
        asked.append(name)
        return tmp_path

    monkeypatch.setattr("heddle.checkpoint.model_source.download", download)
    assert locate("all-MiniLM-L6-v2") != tmp_path
    snapshot = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert locate("all-MiniLM-L6-v2") == tmp_path
    assert asked == ["sentence-transformers/all-MiniLM-L6-v2"]


def repository(files: dict[str, object], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub with these files. A download copies the files that match its patterns and adds them to the list."""
    fetched: list[str] = []

    def snapshot_download(name: str, *, allow_patterns: list[str], ignore_patterns: list[str], **_: object) -> str:
        for path, content in files.items():
            is_asked_for, is_foreign = (
                any(fnmatch(path, pattern) for pattern in patterns) for patterns in (allow_patterns, ignore_patterns)
            )
            if is_asked_for and not is_foreign and path not in fetched:
                fetched.append(path)
                write_json(folder / path, content)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return fetched


MODEL = {"config.json": CONFIG, "tokenizer.json": {}}


def test_pickled_weights_are_downloaded_if_there_are_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = {"pytorch_model-00001-of-00002.bin": 1, "pytorch_model.bin.index.json": {}}
    fetched = repository({**MODEL, **shards, "training_args.bin": 1, "onnx/model.onnx": 1}, tmp_path, monkeypatch)
    locate("owner/name")
    assert sorted(fetched) == sorted([*MODEL, *shards])


def test_pickled_weights_are_not_downloaded_beside_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = repository({**MODEL, "model.safetensors": 1, "pytorch_model.bin": 1}, tmp_path, monkeypatch)
    locate("owner/name")
    assert sorted(fetched) == sorted([*MODEL, "model.safetensors"])


def test_other_safetensors_are_not_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {**MODEL, "adapter_model.safetensors": 1, "pytorch_model.bin": 1}
    fetched = repository(files, tmp_path, monkeypatch)
    locate("owner/name")
    assert sorted(fetched) == sorted(files)


def test_each_folder_with_weights_is_checked_separately(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many models of sentence-transformers have safetensors at the root, but pickled weights of their modules."""
    write_old_modules(tmp_path / "model", ["Transformer", "Pooling", "Dense"])
    listing = json.loads((tmp_path / "model" / "modules.json").read_text())
    weights = {"model.safetensors": 1, "pytorch_model.bin": 1, "2_Dense/pytorch_model.bin": 1}
    files = {**MODEL, "modules.json": listing, "2_Dense/config.json": {}, **weights}
    fetched = repository(files, tmp_path / "copy", monkeypatch)
    locate("owner/name")
    assert set(files) - set(fetched) == {"pytorch_model.bin"}


@pytest.mark.parametrize(
    ("changes", "has_weights"),
    [({}, False), ({"architectures": ["BertForSequenceClassification"]}, True)],
    ids=["embedder", "classifier that does not say how many labels it has"],
)
def test_a_tokenizer_downloads_weights_only_for_the_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], *, has_weights: bool
) -> None:
    files = {**MODEL, "config.json": {**CONFIG, **changes}, "model.safetensors": 1}
    fetched = repository(files, tmp_path, monkeypatch)
    locate("owner/name", with_weights=False)
    assert ("model.safetensors" in fetched) == has_weights
