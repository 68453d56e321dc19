"""Equal folders have equal manifests, and a folder that differs from its manifest gives a clear error."""

import json
from pathlib import Path
from typing import Any

import pytest

from heddle.artifacts.manifest import (
    NAME,
    ManifestError,
    check_sizes,
    is_artifact,
    read_manifest,
    verify,
    write_manifest,
)
from tests.heddle.artifacts.artifact import FILES, write_artifact


def test_a_manifest_that_is_read_equals_the_one_that_was_written(tmp_path: Path) -> None:
    digest = write_artifact(tmp_path, dtype="bfloat16")
    manifest = read_manifest(tmp_path)
    assert [entry.path for entry in manifest.files] == sorted(FILES)
    assert manifest.size == sum(map(len, FILES.values()))
    assert manifest.settings == {"dtype": "bfloat16"}
    assert write_manifest(tmp_path, manifest) == digest
    verify(tmp_path, manifest)


def test_the_same_folder_elsewhere_has_the_same_digest(tmp_path: Path) -> None:
    assert write_artifact(tmp_path / "a") == write_artifact(tmp_path / "b", dict(reversed(FILES.items())))
    assert write_artifact(tmp_path / "a", dtype="float16") != write_artifact(tmp_path / "b")


def test_hidden_files_do_not_belong_to_a_build(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").touch()
    (tmp_path / ".gitattributes").touch()
    write_artifact(tmp_path)
    assert [entry.path for entry in read_manifest(tmp_path).files] == sorted(FILES)


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("config.json", None, "config.json of its manifest.json is missing"),
        ("config.json", b"{}", "config.json has 2 bytes, not 3"),
        ("config.json", b"[]\n", "config.json differs from its hash"),
        ("more.bin", b"", "more.bin is not in the manifest.json"),
    ],
)
def test_a_folder_that_differs_is_named(tmp_path: Path, path: str, content: bytes | None, words: str) -> None:
    write_artifact(tmp_path)
    (tmp_path / path).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / path).write_bytes(content)
    with pytest.raises(ManifestError, match=words):
        verify(tmp_path, read_manifest(tmp_path))


def test_the_quick_check_reads_no_content(tmp_path: Path) -> None:
    write_artifact(tmp_path)
    (tmp_path / "config.json").write_bytes(b"[]\n")
    check_sizes(tmp_path, read_manifest(tmp_path))


def changed(folder: Path, **changes: Any) -> None:
    write_artifact(folder)
    fields = json.loads((folder / NAME).read_text())
    (folder / NAME).write_text(json.dumps({**fields, **changes}))


ENTRY = {"path": "config.json", "size": 3, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format_version": 2, "heddle_version": "9.1"}, "has format 2, written by heddle 9.1; .* up to 1: upgrade"),
        ({"format_version": "1"}, "format_version '1' is not a positive number"),
        ({"files": [{**ENTRY, "path": "../config.json"}]}, r"'\.\./config\.json' is not the path of a file"),
        ({"files": [{**ENTRY, "path": "/etc/passwd"}]}, "'/etc/passwd' is not the path"),
        ({"files": [{**ENTRY, "path": "a/../../b"}]}, "is not the path"),
        ({"files": [{**ENTRY, "path": "manifest.json"}]}, "is not the path"),
        ({"files": [{**ENTRY, "path": ""}]}, "is not the path"),
        ({"files": [{**ENTRY, "size": -1}]}, "size -1 of config.json is not a number of bytes"),
        ({"files": [{**ENTRY, "sha256": "../../x"}]}, "sha256 of config.json is not 64 hexadecimal digits"),
        ({"files": [ENTRY, ENTRY]}, "lists a file twice"),
        ({"files": [{"path": "a", "sha256": "0" * 64}]}, "it has no size"),
        ({"files": None}, "files is not a list"),
        ({"source": []}, "is broken"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_why(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    changed(tmp_path, **changes)
    with pytest.raises(ManifestError, match=words) as caught:
        read_manifest(tmp_path)
    assert str(tmp_path / NAME) in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"name": "another tool"}', b"\xff"])
def test_a_file_of_the_same_name_is_not_a_manifest(tmp_path: Path, content: bytes) -> None:
    assert not is_artifact(tmp_path)
    (tmp_path / NAME).write_bytes(content)
    assert not is_artifact(tmp_path)
    with pytest.raises(ManifestError, match="manifest"):
        read_manifest(tmp_path)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"it has no manifest\.json"):
        read_manifest(tmp_path)
