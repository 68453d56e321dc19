"""The cache is in the folder that the operator states, or else in the user's cache."""

from pathlib import Path

import pytest

from heddle.checkpoint.cache import cache_folder


def test_the_environment_sets_the_folder_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HEDDLE_CACHE", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "heddle"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_folder() == tmp_path / "caches" / "heddle"
    monkeypatch.setenv("HEDDLE_CACHE", "~/models")
    assert cache_folder() == tmp_path / "models"
