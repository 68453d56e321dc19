"""The artifacts on this machine, in Heddle's cache. Called by `heddle build` and `heddle serve`.

Layout, below the folder of the cache:

    artifacts/DIGEST/    one artifact, a model folder; deleting it frees its space
    refs/KEY.json        the artifact of a request, as in a store
    partial/             downloads and builds in progress, and those that were interrupted
    locks/

Files that several artifacts share are hard links, and read-only. Anything here may be deleted while no `heddle`
process is starting.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from heddle.artifacts.build_key import BuildRequest
from heddle.artifacts.manifest import NAME, FileEntry, Manifest, ManifestError, check_sizes, digest_of, hash_file
from heddle.artifacts.manifest import read_manifest as read_manifest_of
from heddle.artifacts.store import Store, blob_path, encode_ref, parse_ref
from heddle.checkpoint.cache import VARIABLE as CACHE_VARIABLE
from heddle.remote.disk_errors import describe_disk_error
from heddle.remote.errors import StoreError


@dataclass(frozen=True, slots=True)
class ArtifactCache:
    """Several processes may share one cache. Methods raise StoreError if its disk cannot be used."""

    folder: Path
    tell: Callable[[str], None] = print  # shows a line to the operator

    def find(self, key: str) -> Path | None:
        """Returns the folder of the artifact that answers a request, or None if there is none or it is broken."""
        try:
            digest = parse_ref((self.folder / "refs" / f"{key}.json").read_bytes(), key)
        except (OSError, StoreError):
            return None
        return self.find_artifact(digest)

    def find_artifact(self, digest: str) -> Path | None:
        folder = self.folder / "artifacts" / digest
        try:
            check_sizes(folder, read_manifest_of(folder))
        except ManifestError:
            return None
        return folder

    def fetch(self, store: Store, digest: str, *, name: str) -> Path:
        """Returns the folder of an artifact, and downloads it if necessary, once for all processes on this machine.
        Resumes an interrupted download. `name` is shown to the operator. Raises StoreError."""
        if found := self.find_artifact(digest):
            return found
        manifest, content = store.read_manifest(digest)
        with self._lock(digest, f"another process is fetching {name}; waiting for it"), self._explain_disk_errors():
            if found := self.find_artifact(digest):
                return found
            partial = self.folder / "partial" / digest
            files, blobs = partial / "folder", partial / "whole"
            files.mkdir(parents=True, exist_ok=True)
            missing = self._link_known_files(manifest, files)
            store.fetch_blobs(missing, blobs, partial / "begun", name=name)
            self._link_blobs(manifest, files, blobs)
            (files / NAME).write_bytes(content)
            folder = self._move_to_artifacts(files, digest)
            shutil.rmtree(partial, ignore_errors=True)
        return folder

    def adopt(self, folder: Path, requests: Iterable[BuildRequest]) -> Path:
        """Moves an artifact that was built in `building` into the cache, and makes it the answer to `requests`. Returns
        its folder."""
        digest = digest_of((folder / NAME).read_bytes())
        check_sizes(folder, read_manifest_of(folder))
        with self._lock(digest, ""), self._explain_disk_errors():
            placed = self.find_artifact(digest)
            if placed is None:
                for entry in read_manifest_of(folder).files:
                    (folder / entry.path).chmod(0o444)
                placed = self._move_to_artifacts(folder, digest)
        self.remember(digest, requests)
        return placed

    def remember(self, digest: str, requests: Iterable[BuildRequest]) -> None:
        """Makes an artifact of the cache the answer to `requests`. Does nothing if the cache cannot be written."""
        with suppress(OSError):
            (self.folder / "refs").mkdir(parents=True, exist_ok=True)
            for request in requests:
                write_atomically(self.folder / "refs" / f"{request.key}.json", encode_ref(digest, request))

    @contextmanager
    def building(self, key: str) -> Iterator[Path]:
        """Yields the path for a new build, which does not exist yet. Only one process at a time builds for a request;
        one that had to wait must call `find` again."""
        with self._lock(f"build-{key}", "another process is building this model; waiting for it"):
            place = self.folder / "partial" / f"build-{key}"
            with self._explain_disk_errors():
                shutil.rmtree(place, ignore_errors=True)  # left by a build that was killed
                place.mkdir(parents=True)
            try:
                yield place / "artifact"
            finally:
                shutil.rmtree(place, ignore_errors=True)

    def _link_known_files(self, manifest: Manifest, files: Path) -> list[FileEntry]:
        """Links files that other artifacts have into `files`. Returns the blobs that are still missing."""
        missing: dict[str, FileEntry] = {}
        known = self._list_known({entry.sha256 for entry in manifest.files})
        for entry in manifest.files:
            target = files / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            source = known.get(entry.sha256)
            # The other artifact may have been damaged since it was downloaded.
            if source is not None and source.stat().st_size == entry.size and hash_file(source) == entry.sha256:
                link(source, target)
            else:
                missing.setdefault(entry.sha256, entry)
        return list(missing.values())

    def _list_known(self, wanted: set[str]) -> dict[str, Path]:
        known = {}
        for folder in (self.folder / "artifacts").glob("*/"):
            with suppress(ManifestError):
                for entry in read_manifest_of(folder).files:
                    if entry.sha256 in wanted and (folder / entry.path).is_file():
                        known[entry.sha256] = folder / entry.path
        return known

    def _link_blobs(self, manifest: Manifest, files: Path, blobs: Path) -> None:
        for entry in manifest.files:
            target, blob = files / entry.path, blobs / blob_path(entry.sha256)
            if not target.exists():
                blob.chmod(0o444)
                link(blob, target)

    def _move_to_artifacts(self, files: Path, digest: str) -> Path:
        """Moves a complete folder to `artifacts` by renaming it, so that no reader sees half of it."""
        folder = self.folder / "artifacts" / digest
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():  # damaged, or `find_artifact` would have found it
            shutil.rmtree(folder)
        files.rename(folder)
        return folder

    @contextmanager
    def _lock(self, name: str, waiting: str) -> Iterator[None]:
        """The operating system releases the lock if the process dies."""
        from filelock import FileLock, Timeout

        with self._explain_disk_errors():
            (self.folder / "locks").mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "locks" / name)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if waiting:
                    self.tell(waiting)
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _explain_disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            line = describe_disk_error(error, "the build", self.folder, CACHE_VARIABLE)
            raise StoreError(line or f"{self.folder} cannot be written: {error}") from error


def link(source: Path, target: Path) -> None:
    """Makes a hard link, or a copy where the file system has no hard links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
        target.chmod(0o444)


def write_atomically(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        file.write(content)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
