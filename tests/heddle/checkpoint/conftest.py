"""Fixtures of the tests of checkpoints."""

from pathlib import Path

import pytest

from tests.checkpoints import write_json
from tests.heddle.checkpoint.bert_folder import CONFIG


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_json(tmp_path / "config.json", CONFIG)
    write_json(tmp_path / "tokenizer.json", {"model": "a"})
    return tmp_path
