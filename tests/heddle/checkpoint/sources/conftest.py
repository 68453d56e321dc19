"""Fixtures of the tests of downloads: a model, an empty cache, and short waits."""

from pathlib import Path

import pytest

from heddle.checkpoint.sources import hub
from heddle.remote import downloads
from tests.heddle.checkpoint.sources.models import write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes small files have several blocks, and makes second tries start at once."""
    monkeypatch.setenv("HEDDLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "BLOCK_BYTES", 64_000)
    monkeypatch.setattr(downloads, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(hub, "FIRST_WAIT_S", 0.01)
    return tmp_path / "cache"
