"""From the name of a model to its folder: a folder as it is, the packaged model, the hub and its cache."""

from pathlib import Path
from typing import Any

import pytest

from heddle.checkpoint_files import CheckpointError
from heddle.model_source import locate


def test_folder_is_located_as_it_is(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("model", ["/no/such/folder", "./nowhere", "a/b/c"])
def test_missing_folder_is_not_looked_up_on_the_hub(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heddle.model_source.download", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match="there is no model folder"):
        locate(model)


def test_what_a_tokenizer_fetches_holds_what_tells_it_the_kinds_of_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def snapshot_download(name: str, **wishes: Any) -> str:
        fetched.extend(wishes["allow_patterns"])
        return "."

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    locate("BAAI/bge-m3", with_weights=False)
    assert {"sparse_linear.pt", "colbert_linear.pt"} < set(fetched)
    assert not any("safetensors" in pattern for pattern in fetched)


def test_a_folder_has_no_revision_but_its_own_name(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert locate(str(snapshot), "abc") == snapshot
    with pytest.raises(CheckpointError, match="has no revision def"):
        locate(str(snapshot), "def")


def test_empty_name_is_refused() -> None:
    with pytest.raises(CheckpointError, match="empty name"):
        locate("")


def test_file_is_not_a_model_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        locate(str(tmp_path / "config.json"))


def test_hub_name_that_cannot_be_fetched_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="nobody/nothing") as caught:
        locate("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_hub_cache_goes_before_the_packaged_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    asked: list[str] = []

    def download(name: str, *_: object) -> Path:
        asked.append(name)
        return tmp_path

    monkeypatch.setattr("heddle.model_source.download", download)
    assert locate("all-MiniLM-L6-v2") != tmp_path
    snapshot = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert locate("all-MiniLM-L6-v2") == tmp_path
    assert asked == ["sentence-transformers/all-MiniLM-L6-v2"]
