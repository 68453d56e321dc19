"""The fingerprint of a tokenizer changes with everything that affects ids, and with nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import CONFIGURATION_PATTERNS
from heddle.checkpoint.tokenizer_files import TOKENIZER_FILES, VOCABULARY_FILES, is_from_transformers_5
from tests.heddle.checkpoint.bert_folder import with_config


def fingerprint(folder: Path) -> str:
    return Checkpoint.read(folder).tokenizer_fingerprint


def added_tokens(folder: Path) -> None:
    (folder / "added_tokens.json").write_text('{"<new>": 30522}')


@pytest.mark.parametrize(
    "change",
    [
        added_tokens,
        lambda folder: with_config(folder, transformers_version="5.1.0"),
        lambda folder: with_config(folder, tokenizer_class="RobertaTokenizer"),
    ],
    ids=["added tokens", "version", "class"],
)
def test_fingerprint_changes_with_other_settings_that_affect_ids(folder: Path, change: Callable[[Path], Any]) -> None:
    before = fingerprint(folder)
    change(folder)
    assert fingerprint(folder) != before


def test_fingerprint_is_the_same_for_versions_that_read_alike(folder: Path) -> None:
    assert (
        len({fingerprint(with_config(folder, transformers_version=version)) for version in ("4.30.2", "4.57.1")}) == 1
    )


@pytest.mark.parametrize("name", VOCABULARY_FILES)
def test_vocabulary_is_part_of_the_fingerprint_without_tokenizer_json(folder: Path, name: str) -> None:
    """Beside a tokenizer.json it is not read, so only one of two pods may have it."""
    alone = fingerprint(folder)
    (folder / name).write_bytes(b"one")
    assert fingerprint(folder) == alone
    (folder / "tokenizer.json").unlink()
    built = fingerprint(folder)
    (folder / name).write_bytes(b"two")
    assert len({alone, built, fingerprint(folder)}) == 3


def test_all_files_of_a_tokenizer_are_downloaded_from_the_hub() -> None:
    for name in (*TOKENIZER_FILES, *VOCABULARY_FILES):
        assert any(Path(name).match(pattern) for pattern in CONFIGURATION_PATTERNS), name


@pytest.mark.parametrize(
    ("version", "settings", "expected"),
    [
        ("4.57.1", {}, False),
        ("5.1.0", {}, True),
        ("5.0.0.dev0", {}, True),
        (None, {}, False),
        ("soon", {}, False),
        ("4.57.1", {"tokenizer_class": "TokenizersBackend"}, True),
    ],
)
def test_version_of_transformers_is_the_one_that_wrote_the_files(
    version: str | None, settings: dict[str, Any], expected: bool
) -> None:
    assert is_from_transformers_5({"transformers_version": version}, settings) == expected
