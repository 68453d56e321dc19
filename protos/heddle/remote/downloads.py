"""Downloads files into a folder: in blocks, several at once, checked, and resumed where the last try stopped.

The blocks of all files are one sequence. Threads download several of them at once, also from a single large file; the
blocks are hashed and written in order. So memory stays at BLOCKS_IN_FLIGHT blocks, and an incomplete file,
`partial/<key>`, has no gaps. A complete file with the right content is renamed into the folder. The caller holds a lock
on both folders.
"""

import hashlib
import io
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from heddle.checkpoint.cache import VARIABLE as CACHE_VARIABLE
from heddle.checkpoint.json_files import CheckpointError
from heddle.progress import Progress, say, spelled_size
from heddle.remote.disk_errors import describe_disk_error, free_bytes
from heddle.remote.errors import TRANSIENT, StoreError

BLOCK_BYTES = 8 << 20
BLOCKS_IN_FLIGHT = 12

TRIES = 4
FIRST_WAIT_S = 0.5

Bytes = bytes | bytearray
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """`path` is relative to the folder; for an archive, it is the name of the archive."""

    path: str
    size: int | None  # bytes; None if the server does not say
    version: str = ""  # changes with the content: an ETag, a generation or a time; "" if the store states none
    hashes: Mapping[str, str] = field(default_factory=dict)  # md5, sha256, crc32c: hexadecimal digits
    has_ranges: bool = True  # whether parts of it can be requested


class FileSource(Protocol):
    """The interface of a store, for `download`. Any thread may call the methods, which raise StoreError."""

    def read(self, file: RemoteFile, start: int, end: int) -> Bytes:
        """Returns all bytes from `start` to before `end`."""

    def stream(self, file: RemoteFile) -> Iterator[Bytes]:
        """Yields the whole file. Called only if it cannot be downloaded in blocks."""

    def check(self, file: RemoteFile, path: Path) -> None:
        """Asks the store whether `path` has the content of the file, after it was downloaded. Called for files without
        hashes. Raises StoreError with the reason `changed` if it is not."""


class WrongContentError(StoreError):
    """A file arrived with a wrong hash in all tries. `found` has its hashes by name, in hexadecimal digits."""

    def __init__(self, file: RemoteFile, found: Mapping[str, str], line: str) -> None:
        super().__init__(line, "wrong")
        self.file, self.found = file, found


def download(
    source: FileSource,
    files: Sequence[RemoteFile],
    folder: Path,
    partial: Path,
    *,
    name: str,
    title: str,
    tries: int = 2,
) -> None:
    """Downloads the files that the folder does not have with the same size. `name` names the model in errors, and
    `title` is shown by the progress bar. A file with a wrong hash is downloaded again, `tries` times in all. Raises
    StoreError, and CheckpointError if the disk is full."""
    for tries_left in reversed(range(tries)):
        with one_line_disk_errors(name, folder):
            wrong = download_once(source, [file for file in files if not is_here(folder, file)], folder, partial, title)
        if not wrong:
            return
        file, found = wrong[0]
        line = f"{name}: {file.path} arrived with a wrong {'/'.join(file.hashes)}"
        if not tries_left:
            why = "it is damaged on the server, or changed on the way"
            raise WrongContentError(file, found, f"{line}, {tries} times: {why}")
        say(f"{line}; downloading it again")


@contextmanager
def one_line_disk_errors(name: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        line = describe_disk_error(error, name, folder, CACHE_VARIABLE)
        raise CheckpointError(line or f"{name} could not be written to {folder}: {error}") from error


def is_here(folder: Path, file: RemoteFile) -> bool:
    path = folder / file.path
    return path.is_file() and file.size in (None, path.stat().st_size)


def download_once(
    source: FileSource, files: Sequence[RemoteFile], folder: Path, partial: Path, title: str
) -> list[tuple[RemoteFile, dict[str, str]]]:
    """Returns the files that arrived with a wrong hash, which have been deleted, and the hashes found."""
    if not files:
        return []
    partial.mkdir(parents=True, exist_ok=True)
    arrivals = [Arrival(source, file, folder / file.path, partial / key_of(file)) for file in files]
    done, total = sum(each.count_bytes() for each in arrivals), sum(file.size or 0 for file in files)
    if total - done > (free := free_bytes(partial)):
        raise CheckpointError(
            f"{title} needs {spelled_size(total - done)}, and the disk of {partial.parent} has {spelled_size(free)} "
            f"left: free some, or set {CACHE_VARIABLE} to a folder on another disk"
        )
    wrong = []
    pool, stopped = ThreadPoolExecutor(BLOCKS_IN_FLIGHT, thread_name_prefix="download"), threading.Event()
    try:
        with Progress(title, total, done) as progress:
            blocks = fetch_blocks(arrivals, pool, stopped)
            finishing = []
            for each in arrivals:
                found = each.receive(blocks, progress, stopped)
                if each.has_hashes(found):
                    finishing.append(pool.submit(each.finish))
                else:
                    wrong.append((each.file, found))
            for finished in finishing:
                finished.result()
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
    return wrong


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that is downloaded to `path`, and then renamed to `target`."""

    source: FileSource
    file: RemoteFile
    target: Path
    path: Path

    @property
    def has_blocks(self) -> bool:
        """Whether it can be downloaded in blocks, which without a version or a hash might be of different contents."""
        file = self.file
        return file.has_ranges and file.size is not None and bool(file.version or file.hashes)

    def count_bytes(self) -> int:
        """Returns the number of bytes that an earlier try has left."""
        return self.path.stat().st_size if self.has_blocks and self.path.exists() else 0

    def list_missing(self) -> Iterator[tuple[int, int]]:
        """Yields the start of each missing block, and its end, which is not part of it."""
        if self.has_blocks and self.file.size:
            for start in range(self.count_bytes(), self.file.size, BLOCK_BYTES):
                yield start, min(start + BLOCK_BYTES, self.file.size)

    def receive(self, blocks: Iterator[Bytes], progress: Progress, stopped: threading.Event) -> dict[str, str]:
        """Returns the hashes of the file. If they are not those that the store states, it is deleted."""
        hashes = make_hashes(self.file.hashes)
        if self.has_blocks:
            with self.path.open("a+b") as out:
                out.seek(0)
                while hashes and (content := out.read(BLOCK_BYTES)):
                    update(hashes, content)
                out.seek(0, io.SEEK_END)
                while out.tell() < (self.file.size or 0):
                    append(out, hashes, next(blocks), progress)
        else:
            hashes = try_again(lambda: self.receive_stream(progress), stopped)
        found = {name: each.digest().hex() for name, each in hashes.items()}
        if not self.has_hashes(found):
            progress.add(-self.path.stat().st_size)
            self.path.unlink()
        return found

    def has_hashes(self, found: Mapping[str, str]) -> bool:
        return all(self.file.hashes[name] == digest for name, digest in found.items())

    def receive_stream(self, progress: Progress) -> dict[str, Any]:
        """Downloads the file from its beginning, because its rest cannot be requested. Returns its hashes."""
        hashes = make_hashes(self.file.hashes)
        with self.path.open("wb") as out:
            try:
                for chunk in self.source.stream(self.file):
                    append(out, hashes, chunk, progress)
            except StoreError:
                progress.add(-out.tell())
                raise
            count = out.tell()
        if self.file.size not in (None, count):
            progress.add(-count)
            raise StoreError(f"{self.file.path} ended after {count} of {self.file.size} bytes", "unreachable")
        return hashes

    def finish(self) -> None:
        try:
            if not self.file.hashes:
                self.source.check(self.file, self.path)
        except StoreError as error:
            if error.reason == "changed":
                self.path.unlink()
            raise
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(self.target)


def fetch_blocks(arrivals: Iterable[Arrival], pool: ThreadPoolExecutor, stopped: threading.Event) -> Iterator[Bytes]:
    """Yields the missing blocks of all files in order, while threads download the next ones."""
    waiting: deque[Future[Bytes]] = deque()
    for each in arrivals:
        for start, end in each.list_missing():
            waiting.append(pool.submit(fetch_block, each, start, end, stopped))
            if len(waiting) >= BLOCKS_IN_FLIGHT:
                yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def fetch_block(arrival: Arrival, start: int, end: int, stopped: threading.Event) -> Bytes:
    return try_again(lambda: arrival.source.read(arrival.file, start, end), stopped)


def append(out: BinaryIO, hashes: Mapping[str, Any], content: Bytes, progress: Progress) -> None:
    out.write(content)
    update(hashes, content)
    progress.add(len(content))


def update(hashes: Mapping[str, Any], content: Bytes) -> None:
    for each in hashes.values():
        each.update(content)


def key_of(file: RemoteFile) -> str:
    """Names an incomplete file by what the store states about it, so that no other content is appended to it."""
    stated = f"{file.path}\n{file.size}\n{file.version}\n{sorted(file.hashes.items())}"
    return hashlib.sha256(stated.encode()).hexdigest()[:32]


def try_again(attempt: Callable[[], T], stopped: threading.Event | None = None) -> T:
    """Tries again after transient errors. Raises the last StoreError, or the first that is not transient. `stopped`
    ends the tries."""
    stopped, wait_s = stopped or threading.Event(), FIRST_WAIT_S
    for tries_left in reversed(range(TRIES)):
        try:
            return attempt()
        except StoreError as error:
            if error.reason not in TRANSIENT or not tries_left or stopped.wait(wait_s):
                raise
        wait_s *= 2
    raise AssertionError("the last try returns or raises")


def make_hashes(names: Iterable[str]) -> dict[str, Any]:
    """Leaves out hashes whose library is not installed."""
    return {name: made for name in names if (made := make_hash(name)) is not None}


def make_hash(name: str) -> Any:
    if name != "crc32c":
        return hashlib.new(name, usedforsecurity=False)
    try:
        import google_crc32c
    except ImportError:
        return None
    return google_crc32c.Checksum()  # type: ignore[no-untyped-call, unused-ignore]
