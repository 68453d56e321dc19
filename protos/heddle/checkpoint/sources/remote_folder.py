"""The folder of a model that comes from a bucket or from the web, in Heddle's cache. Called by `model_source`.

    <cache>/models/<name>-<hash of the address>/
        lock                      held by the process that downloads; others wait
        latest.json               what the store held when it was last asked
        partial/                  incomplete files
        snapshots/<digest>/       the files, as `latest.json` or an older one lists them

The digest is a hash of the list: paths, sizes, versions and hashes. So a changed file makes a new snapshot, which
shares the unchanged files with the old one, and running processes keep theirs. A snapshot holds only the files that
somebody asked for.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path

from heddle.checkpoint.cache import cache_folder
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.sources.listing import RemoteModel, check_is_model
from heddle.progress import say
from heddle.remote.addresses import Address
from heddle.remote.downloads import RemoteFile, WrongContentError, download, is_here, one_line_disk_errors
from heddle.remote.errors import StoreError

DIGEST_CHARACTERS = 40
DIGEST = re.compile(rf"[0-9a-f]{{{DIGEST_CHARACTERS}}}")
SILENT_WAIT_S = 2.0


def open_model(address: Address) -> RemoteModel:
    if address.store == "web":
        from heddle.checkpoint.sources.web import WebModel

        return WebModel(address)
    from heddle.checkpoint.sources.buckets import BucketModel

    return BucketModel(address)


def model_folder(address: Address) -> Path:
    return cache_folder() / "models" / address.key


def find_snapshot(address: Address, revision: str | None) -> Path | None:
    """Returns the snapshot `revision` in the cache, or the latest one; None if there is none. Asks no store."""
    folder = model_folder(address)
    if revision is None:
        latest = read_latest(folder)
        revision = digest_of(latest) if latest else None
    snapshot = folder / "snapshots" / (revision or "")
    return snapshot if DIGEST.fullmatch(snapshot.name) and snapshot.is_dir() else None


class RemoteFolder:
    """Lists the files of the store once, so that all of them come from the same state of the store."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.folder = model_folder(address)
        self.store: RemoteModel | None = None
        try:
            self.store = open_model(address)
            self.files = self.list_files(self.store)
        except StoreError as error:
            latest = read_latest(self.folder)
            if error.reason not in ("unreachable", "failed") or latest is None:
                raise
            self.store, self.files, self.error = None, latest, error
        self.is_archive = self.holds_archive(self.files)

    @property
    def snapshot(self) -> Path:
        return self.folder / "snapshots" / digest_of(self.files)

    def list_files(self, store: RemoteModel) -> list[RemoteFile]:
        files = store.list_files()
        if self.holds_archive(files):
            stated = {"sha256": self.address.sha256} if self.address.sha256 else {}
            return [replace(files[0], hashes={**files[0].hashes, **stated})]
        check_is_model(files, self.address.shown)
        return files

    def holds_archive(self, files: Sequence[RemoteFile]) -> bool:
        """A web server may send an archive from any address. It lists a folder only if that holds a model."""
        is_one_file = len(files) == 1 and files[0].path != "config.json"
        return is_one_file and (self.address.is_archive or self.address.store == "web")

    def fetch(self, patterns: Sequence[str], ignored: Sequence[str]) -> Path:
        """Returns the folder with the files that match one of `patterns` and none of `ignored`, or with all files of an
        archive. Raises CheckpointError."""
        wanted = [file for file in self.files if matches(file, patterns) and not matches(file, ignored)]
        if not self.is_complete(wanted):
            if self.store is None:
                raise self.error
            with one_line_disk_errors(self.address.shown, self.folder), self.locked():
                if not self.is_complete(wanted):
                    self.fetch_archive() if self.is_archive else self.fetch_files(self.store, wanted)
        if self.store is None:
            say(f"{self.error}; using what was downloaded before")
        else:
            write_latest(self.folder, self.files)
        return self.snapshot

    def is_complete(self, wanted: Sequence[RemoteFile]) -> bool:
        """The folder of an archive is complete once it exists: it is renamed after unpacking."""
        if self.is_archive:
            return self.snapshot.is_dir() and self.has_version
        return all(is_here(self.snapshot, file) for file in wanted)

    @property
    def has_version(self) -> bool:
        """Whether the server states a version or a hash of the archive, which would show a change."""
        return bool(self.files[0].version or self.files[0].hashes)

    def fetch_files(self, store: RemoteModel, wanted: Sequence[RemoteFile]) -> None:
        self.link_unchanged(wanted)
        self.download(store, wanted, self.snapshot, self.folder / "partial")
        if self.is_complete([file for file in self.files if file.path.endswith((".json", ".safetensors"))]):
            shutil.rmtree(self.folder / "partial", ignore_errors=True)

    def download(self, store: RemoteModel, files: Sequence[RemoteFile], folder: Path, partial: Path) -> None:
        shown, stated = self.address.shown, self.address.sha256
        # A wrong hash in the address is more likely than a damaged download, which may have gigabytes.
        tries = 1 if stated else 2
        try:
            download(store, files, folder, partial, name=shown, title=f"downloading {shown}", tries=tries)
        except WrongContentError as error:
            if not stated:
                raise
            line = f"{shown} is not the file that its address states: that says sha256 {stated}"
            raise CheckpointError(f"{line}, the file has {error.found['sha256']}") from None

    def link_unchanged(self, wanted: Sequence[RemoteFile]) -> None:
        """Links the files of the previous snapshot that have not changed."""
        before = read_latest(self.folder) or []
        known = {(file.path, file.size, file.version) for file in before if file.version}
        older = self.folder / "snapshots" / digest_of(before)
        for file in wanted:
            source, target = older / file.path, self.snapshot / file.path
            if (file.path, file.size, file.version) in known and is_here(older, file) and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    target.hardlink_to(source)
                except OSError:  # a file system without links
                    shutil.copy2(source, target)

    def fetch_archive(self) -> None:
        from heddle.checkpoint.sources.archives import unpack

        assert self.store is not None
        (archive,) = self.files
        place = self.folder / "partial"
        self.download(self.store, [archive], place / "archive", place)
        packed, unpacked = place / "archive" / archive.path, place / "unpacked"
        if not self.has_version:
            self.files = [replace(archive, version=hash_file(packed))]
        shutil.rmtree(unpacked, ignore_errors=True)
        model = unpack(packed, unpacked, shown=self.address.shown)
        if not self.snapshot.is_dir():
            self.snapshot.parent.mkdir(parents=True, exist_ok=True)
            model.replace(self.snapshot)
        shutil.rmtree(place, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        try:
            from filelock import FileLock, Timeout
        except ImportError:
            raise CheckpointError(f"{self.address.shown} needs filelock: pip install 'heddle[sources]'") from None
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=SILENT_WAIT_S)
        except Timeout:
            say(f"another process is downloading {self.address.shown}: waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def matches(file: RemoteFile, patterns: Sequence[str]) -> bool:
    return any(fnmatch(file.path, pattern) for pattern in patterns)


def digest_of(files: Sequence[RemoteFile]) -> str:
    lines = sorted(f"{file.path}\n{file.size}\n{file.version}\n{sorted(file.hashes.items())}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:DIGEST_CHARACTERS]


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_latest(folder: Path) -> list[RemoteFile] | None:
    """Returns None if the file is missing or cannot be read."""
    try:
        entries = json.loads((folder / "latest.json").read_text(encoding="utf-8"))
        return [RemoteFile(**entry) for entry in entries]
    except (OSError, ValueError, TypeError):
        return None


def write_latest(folder: Path, files: Sequence[RemoteFile]) -> None:
    if read_latest(folder) == files:
        return
    path = folder / f"latest.{os.getpid()}.json"
    path.write_text(json.dumps([asdict(file) for file in files], indent=1), encoding="utf-8")
    path.replace(folder / "latest.json")
