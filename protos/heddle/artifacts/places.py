"""Access to a store of builds: in a bucket or folder with fsspec, or read-only on a web server. Called by `store`.

Paths are relative to the store. Threads may share a place.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from heddle.remote.addresses import Address, parse_store_address
from heddle.remote.downloads import Bytes, FileSource, RemoteFile, try_again
from heddle.remote.errors import StoreError
from heddle.remote.filesystems import FileSystem
from heddle.remote.web import WebClient, describe

UPLOAD_CHUNK_BYTES = 16 << 20
PARTS_MAX = 9_000  # S3 allows 10,000


class Place(FileSource, Protocol):
    """All methods raise StoreError."""

    address: Address
    has_ranges: bool  # whether parts of a file can be requested; known once a file has been read

    def read_file(self, path: str) -> bytes | None:
        """Returns a small file, or None if there is none."""

    def check_place(self, *, may_be_new: bool) -> None:
        """Raises StoreError if the bucket does not exist, or the folder, unless `may_be_new`."""

    def size(self, path: str) -> int | None:
        """Returns the bytes of a file, or None if there is none."""

    def write_file(self, path: str, content: bytes) -> None:
        """Replaces a small file in one step."""

    def upload(self, path: str, file: Path, on_bytes: Callable[[int], None]) -> None:
        """Replaces a file in one step with a local one. Calls `on_bytes` with the number of bytes sent since its last
        call, also from other threads."""


def open_place(address: str) -> Place:
    """Does not contact the store yet. Raises CheckpointError."""
    parsed = parse_store_address(address)
    return WebPlace(parsed) if parsed.store == "web" else FileSystemPlace(parsed)


class FileSystemPlace:
    has_ranges = True

    def __init__(self, address: Address) -> None:
        self.address = address
        self.files = FileSystem(address, writable=True)

    def locate(self, path: str) -> str:
        return f"{self.files.root}/{path}"

    def read_file(self, path: str) -> bytes | None:
        content: bytes | None = none_if_missing(lambda: self.files.read("cat_file", self.locate(path)))
        return content

    def check_place(self, *, may_be_new: bool) -> None:
        shown, bucket = self.address.shown, self.address.location.partition("/")[0]
        if self.address.is_bucket:
            try:
                self.files.read("info", bucket)
            except StoreError as error:
                if error.reason == "missing":  # credentials for objects may not suffice for their bucket
                    raise StoreError(
                        f"the store {shown} cannot be used: there is no bucket {bucket}", "missing"
                    ) from error
        elif not may_be_new and not self.files.read("exists", self.files.root):
            raise StoreError(f"the store {shown} cannot be used: there is no such folder", "missing")

    def size(self, path: str) -> int | None:
        info = none_if_missing(lambda: self.files.read("info", self.locate(path)))
        return None if info is None else int(info["size"])

    def read(self, file: RemoteFile, start: int, end: int) -> Bytes:
        with named_fault(self.address, file):
            content: bytes = self.files.read("cat_file", self.locate(file.path), start=start, end=end)
        if len(content) != end - start:
            raise StoreError(f"{self.address.shown}: {file.path} ended after {start + len(content)} bytes")
        return content

    def stream(self, file: RemoteFile) -> Iterator[Bytes]:
        raise AssertionError("all file systems have ranges")

    def check(self, file: RemoteFile, path: Path) -> None:
        """Never called, because every blob has a hash."""

    def write_file(self, path: str, content: bytes) -> None:
        self.put(path, lambda place: self.files.write("pipe_file", place, content))

    def upload(self, path: str, file: Path, on_bytes: Callable[[int], None]) -> None:
        total = file.stat().st_size
        options: dict[str, Any] = {}
        if self.address.store in ("s3", "gcs"):
            options["chunksize"] = max(UPLOAD_CHUNK_BYTES, -(-total // PARTS_MAX // (1 << 18)) * (1 << 18))
        if self.address.store in ("s3", "azure"):
            options["max_concurrency"] = 2

        def put(place: str) -> None:
            counter = make_counter(on_bytes)
            try:
                self.files.write("put_file", str(file), place, callback=counter, **options)
            except BaseException:
                on_bytes(-counter.reported)  # the next attempt starts again
                raise
            on_bytes(total - counter.reported)  # some file systems report nothing for small files

        self.put(path, put)

    def put(self, path: str, put: Callable[[str], None]) -> None:
        """Uploads to a bucket appear all at once. Elsewhere a temporary file is renamed."""
        if self.address.is_bucket:
            put(self.locate(path))  # its library has tried again
            return

        def replace() -> None:
            temporary = self.locate(f"tmp/{uuid.uuid4().hex}")
            for place in (self.locate(path), temporary):
                self.files.write("makedirs", place.rpartition("/")[0], exist_ok=True)
            try:
                put(temporary)
                self.files.write("mv", temporary, self.locate(path))
            except BaseException:
                with suppress(StoreError):
                    self.files.write("rm_file", temporary)
                raise

        try_again(replace)


class WebPlace:
    def __init__(self, address: Address) -> None:
        self.address, self.client, self.has_ranges = address, WebClient(address), True

    def locate(self, path: str) -> str:
        parts = urlsplit(self.client.url)
        return parts._replace(path=f"{parts.path.rstrip('/')}/{path}").geturl()

    def read_file(self, path: str) -> bytes | None:
        content: bytes | None = none_if_missing(lambda: try_again(lambda: self.read_once(path)))
        return content

    def read_once(self, path: str) -> bytes:
        with self.client.ask(self.locate(path), "bytes=0-") as answer:
            self.has_ranges = self.has_ranges and describe(path, answer).has_ranges
            content: bytes = answer.read()
        return content

    def check_place(self, *, may_be_new: bool) -> None:
        """Checks nothing, because a web server does not tell whether a folder exists."""

    def size(self, path: str) -> int | None:
        raise self.refusal()

    def read(self, file: RemoteFile, start: int, end: int) -> Bytes:
        with named_fault(self.address, file):
            return self.client.read(self.locate(file.path), file, start, end)

    def stream(self, file: RemoteFile) -> Iterator[Bytes]:
        with named_fault(self.address, file):
            yield from self.client.stream(self.locate(file.path))

    def check(self, file: RemoteFile, path: Path) -> None:
        """Never called, because every blob has a hash."""

    def write_file(self, path: str, content: bytes) -> None:
        raise self.refusal()

    def upload(self, path: str, file: Path, on_bytes: Callable[[int], None]) -> None:
        raise self.refusal()

    def refusal(self) -> StoreError:
        return StoreError(f"{self.address.shown} is read-only: publish to the bucket or folder behind it", "refused")


def none_if_missing(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except StoreError as error:
        if error.reason != "missing":
            raise
        return None


@contextmanager
def named_fault(address: Address, file: RemoteFile) -> Iterator[None]:
    """A manifest names the file and its size, and blobs never change."""
    try:
        yield
    except StoreError as error:
        if error.reason == "missing":
            raise StoreError(f"{address.shown} has lost {file.path}: publish the build again", "missing") from error
        if error.reason == "changed":
            line = f"{address.shown} holds a damaged copy of {file.path}: publish the build again"
            raise StoreError(line, "wrong") from error
        raise


def make_counter(on_bytes: Callable[[int], None]) -> Any:
    """Returns a callback for fsspec, which either states a total or adds to it; `on_bytes` gets the difference."""
    from fsspec.callbacks import Callback

    class Counter(Callback):  # type: ignore[misc]
        reported = 0

        def call(self, hook_name: str | None = None, **_: Any) -> None:
            on_bytes(self.value - self.reported)
            self.reported = self.value

    return Counter()
