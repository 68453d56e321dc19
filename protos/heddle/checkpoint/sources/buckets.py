"""The files of a model in a bucket of S3, Google Cloud Storage or Azure. Called by `remote_folder`."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from heddle.remote.addresses import Address
from heddle.remote.downloads import Bytes, RemoteFile
from heddle.remote.errors import StoreError, as_store_error
from heddle.remote.filesystems import FileSystem

# With these encryptions of S3, an ETag says nothing about the content.
OPAQUE_ENCRYPTIONS = ("aws:kms", "aws:kms:dsse")

READ_BYTES = 1 << 20


class BucketModel:
    def __init__(self, address: Address) -> None:
        self.address, self.bucket = address, FileSystem(address)

    def list_files(self) -> list[RemoteFile]:
        if not (found := self.find()):
            raise as_store_error(FileNotFoundError(), self.address)
        return [self.describe(path, entry) for path, entry in sorted(found.items())]

    def find(self) -> Mapping[str, Mapping[str, Any]]:
        """Returns entries by path with the bucket, but not the empty objects that stand for folders (`path/`)."""
        location = self.address.location
        if self.address.is_archive:
            return {location: self.bucket.read("info", location)}
        found: Mapping[str, Mapping[str, Any]] = self.bucket.read("find", location, detail=True)
        return {path: entry for path, entry in found.items() if entry.get("type") == "file" and path[-1] != "/"}

    def describe(self, path: str, entry: Mapping[str, Any]) -> RemoteFile:
        version = entry.get("generation") or entry.get("ETag") or entry.get("etag") or ""
        relative = path.removeprefix(self.address.location).lstrip("/") or path.rpartition("/")[2]
        return RemoteFile(relative, int(entry["size"]), str(version).strip('"'), find_hashes(entry))

    def read(self, file: RemoteFile, start: int, end: int) -> Bytes:
        content: bytes = self.bucket.read("cat_file", self.path_of(file), start=start, end=end)
        if len(content) != end - start:
            raise StoreError(f"{file.path} of {self.address.shown} has changed since it was listed", "changed")
        return content

    def stream(self, file: RemoteFile) -> Iterator[Bytes]:
        yield self.bucket.read("cat_file", self.path_of(file))

    def check(self, file: RemoteFile, path: Path) -> None:
        if self.address.store == "s3":
            is_right = self.check_etag(file, path)
        else:
            entry = self.bucket.read("info", self.path_of(file))
            is_right = self.describe(self.path_of(file), entry).version == file.version
        if not is_right:
            raise StoreError(f"{file.path} of {self.address.shown} has changed since it was listed", "changed")

    def check_etag(self, file: RemoteFile, path: Path) -> bool:
        """The ETag of S3 is the MD5 of the content or, if it ends with -N, the MD5 of the MD5s of its N parts."""
        bucket, _, key = self.path_of(file).partition("/")
        digest, _, parts = file.version.partition("-")
        first = {"PartNumber": 1} if parts else {}
        head = self.bucket.read("call_s3", "head_object", Bucket=bucket, Key=key, **first)
        if head.get("ServerSideEncryption") in OPAQUE_ENCRYPTIONS or head.get("SSECustomerAlgorithm"):
            return str(head["ETag"]).strip('"') == file.version
        if len(digest) != 32:
            return True
        if not parts:
            return digest_of(path) == digest
        part_bytes = int(head["ContentLength"])
        if -(-path.stat().st_size // part_bytes) != int(parts):  # parts of different sizes
            return True
        return digest_of_parts(path, part_bytes) == digest

    def path_of(self, file: RemoteFile) -> str:
        location = self.address.location
        is_that_file = location.endswith(f"/{file.path}") and self.address.is_archive
        return location if is_that_file else f"{location}/{file.path}"


def find_hashes(entry: Mapping[str, Any]) -> dict[str, str]:
    """Returns the hashes that Google and Azure state. Azure has none for files that were uploaded in blocks."""
    if entry.get("md5Hash"):
        return {"md5": base64.b64decode(entry["md5Hash"]).hex()}
    if entry.get("crc32c"):
        return {"crc32c": base64.b64decode(entry["crc32c"]).hex()}
    content_md5 = (entry.get("content_settings") or {}).get("content_md5")
    return {"md5": bytes(content_md5).hex()} if content_md5 else {}


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def digest_of_parts(path: Path, part_bytes: int) -> str:
    digests = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while file.tell() < path.stat().st_size:
            left, part = part_bytes, hashlib.md5(usedforsecurity=False)
            while left and (chunk := file.read(min(left, READ_BYTES))):  # a part may have gigabytes
                left -= len(chunk)
                part.update(chunk)
            digests.update(part.digest())
    return digests.hexdigest()
