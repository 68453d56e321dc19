"""The manifest of an artifact: what its folder holds, and what it was made of and how.

Written by `heddle build`. Read by the store, and by `heddle serve` to check a folder. An artifact is a checkpoint
folder with a `manifest.json`. The same manifest always has the same bytes, and their hash is the artifact's digest.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from heddle.checkpoint.json_files import CheckpointError

NAME = "manifest.json"

# Increase it when older versions of Heddle would misread a new manifest or folder.
FORMAT_VERSION = 1

HASH_DIGITS = 64  # of SHA-256 in hexadecimal


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file. `path` is relative to the folder, with `/` between names."""

    path: str
    size: int  # bytes
    sha256: str  # hexadecimal digits


@dataclass(frozen=True, slots=True)
class Source:
    """The checkpoint that an artifact was made of."""

    model: str  # hub name or address; for a local folder only its name, because paths differ between machines
    revision: str  # commit of a hub model; "" for others
    files: tuple[FileEntry, ...]  # those that the build read


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artifact is. `settings` and `report` hold JSON values."""

    format_version: int
    heddle_version: str
    source: Source
    settings: Mapping[str, Any]  # of the build: quantization, dtype and so on
    report: Mapping[str, Any] | None  # what the build measured
    files: tuple[FileEntry, ...]  # all files of the folder but the manifest, in the order of their paths

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)


class ManifestError(CheckpointError):
    """A manifest cannot be read, or a folder is not what its manifest says. The message names the file."""


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_file(folder: Path, path: str) -> FileEntry:
    """Returns the entry of the file `path` in `folder`. Raises OSError."""
    file = folder / path
    return FileEntry(path, file.stat().st_size, hash_file(file))


def list_files(folder: Path) -> list[str]:
    """Returns the sorted relative paths of all files below `folder`, except the manifest and hidden files."""
    found: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in names if not name.startswith(".")]
    return sorted(path for path in found if path != NAME)


def describe_files(folder: Path, paths: Iterable[str] | None = None) -> tuple[FileEntry, ...]:
    """Returns sorted entries for `paths` in `folder`, or for all its files if `paths` is None. Raises OSError."""
    return tuple(describe_file(folder, path) for path in (list_files(folder) if paths is None else sorted(paths)))


def encode_manifest(manifest: Manifest) -> bytes:
    """Returns the bytes of `manifest.json`. Raises ValueError for values that JSON does not have, such as NaN."""
    text = json.dumps(asdict(manifest), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def digest_of(content: bytes) -> str:
    """Returns the digest of an artifact from the bytes of its manifest."""
    return hashlib.sha256(content).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> str:
    """Writes `manifest.json` in one step, so that no reader sees half of it. Returns the artifact's digest."""
    content = encode_manifest(manifest)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{NAME}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o644)
        Path(name).replace(folder / NAME)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return digest_of(content)


def read_manifest(folder: Path) -> Manifest:
    """Raises ManifestError if there is no manifest, or one that this version cannot use."""
    path = folder / NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"{folder} is not a build of heddle: it has no {NAME}") from None
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error}") from None
    return parse_manifest(content, str(path))


def is_artifact(folder: Path) -> bool:
    """Whether `folder` has a manifest of Heddle. Other tools write a manifest.json too."""
    try:
        content = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "heddle_version" in content


def read_manifest_if_artifact(folder: Path) -> Manifest | None:
    """Returns None for a folder that is no artifact. Raises ManifestError."""
    return read_manifest(folder) if is_artifact(folder) else None


def parse_manifest(content: bytes, place: str) -> Manifest:
    """Reads the bytes of a manifest. `place` names it in errors. Raises ManifestError."""
    try:
        fields = json.loads(content)
    except ValueError as error:
        raise ManifestError(f"{place} is not valid JSON: {error}") from None
    if not isinstance(fields, dict) or "heddle_version" not in fields:
        raise ManifestError(f"{place} is not a manifest of heddle")
    version = fields.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ManifestError(f"{place}: format_version {version!r} is not a positive number")
    if version > FORMAT_VERSION:
        raise ManifestError(
            f"{place} has format {version}, written by heddle {fields['heddle_version']}; this version reads formats up"
            f" to {FORMAT_VERSION}: upgrade heddle, or build the model again"
        )
    try:
        return to_manifest(fields)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else error
        raise ManifestError(f"{place} is broken: {reason}") from None


def to_manifest(fields: Mapping[str, Any]) -> Manifest:
    source = fields["source"]
    report = fields["report"]
    return Manifest(
        format_version=fields["format_version"],
        heddle_version=text(fields, "heddle_version"),
        source=Source(text(source, "model"), text(source, "revision"), to_entries(source["files"])),
        settings=dict(fields["settings"]),
        report=None if report is None else dict(report),
        files=to_entries(fields["files"]),
    )


def to_entries(items: Any) -> tuple[FileEntry, ...]:
    if not isinstance(items, list):
        raise TypeError("files is not a list")
    entries = tuple(to_entry(item) for item in items)
    if len({entry.path for entry in entries}) < len(entries):
        raise ValueError("it lists a file twice")
    return entries


def to_entry(item: Mapping[str, Any]) -> FileEntry:
    path, size, sha256 = text(item, "path"), item["size"], text(item, "sha256")
    check_path(path)
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"the size {size!r} of {path} is not a number of bytes")
    if len(sha256) != HASH_DIGITS or set(sha256) - set("0123456789abcdef"):
        raise ValueError(f"the sha256 of {path} is not {HASH_DIGITS} hexadecimal digits")
    return FileEntry(path, size, sha256)


def check_path(path: str) -> None:
    """Raises ValueError for a path that would lead out of the folder, or that names the manifest or no file."""
    names = path.split("/")
    is_inside = not PurePosixPath(path).is_absolute() and not {"", ".", ".."}.intersection(names)
    if not is_inside or path == NAME or not path.isprintable() or "\\" in path or ":" in names[0]:
        raise ValueError(f"{path!r} is not the path of a file in the folder")


def text(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} {value!r} is not a text")
    return value


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Raises ManifestError for the first file that is missing or has another size. Does not read their content."""
    for entry in manifest.files:
        file = folder / entry.path
        if not file.is_file():
            raise ManifestError(f"{folder} is incomplete: {entry.path} of its {NAME} is missing")
        if (size := file.stat().st_size) != entry.size:
            raise ManifestError(f"{file} has {size} bytes, not {entry.size} as in {NAME}: copy or build it again")


def verify(folder: Path, manifest: Manifest, progress: Callable[[int], None] = lambda size: None) -> None:
    """Reads every file, and raises ManifestError for the first that is missing, differs from the manifest, or is not in
    it. Calls `progress` with the size of each file that is right."""
    check_sizes(folder, manifest)
    if unknown := set(list_files(folder)) - {entry.path for entry in manifest.files}:
        raise ManifestError(f"{folder / min(unknown)} is not in the {NAME} of its folder")
    for entry in manifest.files:
        if hash_file(folder / entry.path) != entry.sha256:
            raise ManifestError(f"{folder / entry.path} differs from its hash in {NAME}: build or copy it again")
        progress(entry.size)
