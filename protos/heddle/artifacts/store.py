"""A content-addressed store of artifacts at any address that fsspec knows. Called by `heddle build` and `heddle serve`.

Layout, below the address:

    blobs/sha256/HASH        one file of some artifacts
    manifests/DIGEST.json    the manifest of an artifact; its digest is its SHA-256
    refs/KEY.json            the artifact of a request: what a config asks for

Blobs are written before their manifest, and a manifest before its refs. A reader starts from a ref or a digest, so it
never sees half an artifact. The content under a hash never changes, so several publishers may write at once.
"""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heddle.artifacts.build_key import BuildRequest
from heddle.artifacts.manifest import (
    FORMAT_VERSION,
    HASH_DIGITS,
    NAME,
    FileEntry,
    Manifest,
    ManifestError,
    check_sizes,
    digest_of,
    hash_file,
    parse_manifest,
)
from heddle.artifacts.places import Place, open_place
from heddle.progress import Progress
from heddle.remote.downloads import RemoteFile, WrongContentError, download
from heddle.remote.errors import StoreError

UPLOADS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Published:
    """What `Store.publish` did."""

    digest: str  # of the artifact
    blobs: int  # uploaded, because the store lacked them
    size: int  # bytes of those blobs


@dataclass(frozen=True, slots=True)
class Store:
    """Threads may share it. Methods raise StoreError if the store cannot be used."""

    place: Place

    @classmethod
    def at(cls, address: str) -> "Store":
        """Does not contact the store yet. Raises CheckpointError for an address that cannot be used."""
        return cls(open_place(address))

    @property
    def name(self) -> str:
        return self.place.address.shown

    def check_place(self, *, may_be_new: bool) -> None:
        """Raises StoreError if the bucket does not exist, or the folder, unless `may_be_new`: publishing makes it."""
        self.place.check_place(may_be_new=may_be_new)

    def find(self, key: str) -> str | None:
        """Returns the digest of the artifact that answers a request, or None."""
        path = f"refs/{key}.json"
        content = self.place.read_file(path)
        return None if content is None else parse_ref(content, f"{self.name}/{path}")

    def read_manifest(self, digest: str) -> tuple[Manifest, bytes]:
        """Returns a manifest and its bytes. Raises StoreError, also if it is missing or damaged."""
        place = f"{self.name}/manifests/{digest}.json"
        content = self.place.read_file(f"manifests/{digest}.json")
        if content is None:
            raise StoreError(f"{self.name} has no build {digest}")
        if digest_of(content) != digest:
            raise StoreError(f"{place} is damaged: delete it, and publish the build again")
        return parse_manifest(content, place), content

    def fetch_blobs(self, blobs: Sequence[FileEntry], folder: Path, partial: Path, *, name: str) -> None:
        """Downloads blobs into `folder`, each to its `blob_path`. Resumes an earlier call with the same `partial`.
        `name` is shown to the operator."""
        files = [
            RemoteFile(blob_path(entry.sha256), entry.size, "", {"sha256": entry.sha256}, self.place.has_ranges)
            for entry in blobs
        ]
        title = f"fetching {name} from {self.name}"
        try:
            download(self.place, files, folder, partial, name=name, title=title)
        except WrongContentError as error:
            path = next(entry.path for entry in blobs if blob_path(entry.sha256) == error.file.path)
            advice = f"delete {error.file.path} there, and publish the build again"
            raise StoreError(f"{self.name} holds a damaged copy of {path}: {advice}", "wrong") from None

    def publish(self, folder: Path, requests: Iterable[BuildRequest]) -> Published:
        """Uploads the artifact in `folder`, except for blobs that the store has, and makes it the answer to `requests`.
        Raises ManifestError if the folder is not what its manifest says."""
        content = (folder / NAME).read_bytes() if (folder / NAME).is_file() else b""
        if not content:
            raise ManifestError(f"{folder} is not a build of heddle: it has no {NAME}")
        manifest, digest = parse_manifest(content, str(folder / NAME)), digest_of(content)
        check_sizes(folder, manifest)
        missing = self._list_missing(manifest)
        size = sum(entry.size for entry in missing)
        with Progress(f"publishing to {self.name}", size) as progress:
            self._upload(folder, missing, progress)
        self.place.write_file(f"manifests/{digest}.json", content)
        for request in requests:
            self.place.write_file(f"refs/{request.key}.json", encode_ref(digest, request))
        return Published(digest, len(missing), size)

    def _list_missing(self, manifest: Manifest) -> list[FileEntry]:
        """Returns the blobs that the store lacks. A blob with a wrong size is damaged, and is uploaded again."""
        blobs = list({entry.sha256: entry for entry in manifest.files}.values())
        with ThreadPoolExecutor(UPLOADS_AT_ONCE * 2, thread_name_prefix="publish") as pool:
            sizes = list(pool.map(lambda entry: self.place.size(blob_path(entry.sha256)), blobs))
        return [entry for entry, size in zip(blobs, sizes, strict=True) if size != entry.size]

    def _upload(self, folder: Path, blobs: Sequence[FileEntry], progress: Progress) -> None:
        def upload(entry: FileEntry) -> None:
            file = folder / entry.path
            # A changed file under the old hash would damage every artifact with this blob.
            if hash_file(file) != entry.sha256:
                raise ManifestError(f"{file} differs from its hash in {NAME}: build it again")
            self.place.upload(blob_path(entry.sha256), file, progress.add)

        pool = ThreadPoolExecutor(UPLOADS_AT_ONCE, thread_name_prefix="publish")
        try:
            for uploading in [pool.submit(upload, entry) for entry in blobs]:
                uploading.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def blob_path(sha256: str) -> str:
    """Returns the place of a blob in a store."""
    return f"blobs/sha256/{sha256}"


def encode_ref(digest: str, request: BuildRequest) -> bytes:
    """Returns the bytes of a ref. The request in it is only for people."""
    fields = {"format_version": FORMAT_VERSION, "manifest": digest, "request": request.describe()}
    return f"{json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False)}\n".encode()


def parse_ref(content: bytes, place: str) -> str:
    """Returns the digest in a ref. `place` names it in errors. Raises StoreError."""
    try:
        fields: Any = json.loads(content)
        version, digest = fields["format_version"], fields["manifest"]
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{place} is not a ref of heddle") from None
    if version != FORMAT_VERSION:
        raise StoreError(f"{place} has format {version!r}; this version of heddle reads {FORMAT_VERSION}")
    if not isinstance(digest, str) or len(digest) != HASH_DIGITS or set(digest) - set("0123456789abcdef"):
        raise StoreError(f"{place} names no manifest")
    return digest
