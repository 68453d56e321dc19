"""Unpacks the archive of a model: tar, plain or compressed with gzip, bzip2, xz or zstandard, or zip.

Archives are not trusted: only files and folders are written, inside the target and within limits. A link becomes a hard
link to the file in the archive that it points to. Called by `remote_folder`.
"""

import posixpath
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from heddle.checkpoint.json_files import CheckpointError
from heddle.progress import Progress, spelled_size
from heddle.remote.disk_errors import free_bytes

MEMBERS_MAX = 20_000
# Unpacked bytes per byte of the archive; BYTES_ALWAYS_ALLOWED are allowed for any archive. Weights hardly compress.
EXPANSION_MAX = 50
BYTES_ALWAYS_ALLOWED = 1 << 30

COPY_BYTES = 1 << 20
ZSTANDARD_MAGIC = b"\x28\xb5\x2f\xfd"

SYMLINK_MODE, TYPE_MASK = 0o120000, 0o170000

# What other programs leave in archives and folders.
CLUTTER = ("__MACOSX", ".DS_Store")


def unpack(archive: Path, target: Path, *, shown: str) -> Path:
    """Returns the folder of the model: the target, or the only folder in it. `shown` names the archive in errors.
    Raises CheckpointError."""
    target.mkdir(parents=True, exist_ok=True)
    with one_line_errors(shown), Progress(f"unpacking {shown}", 0) as progress:
        unpacking = Unpacking(archive, target, shown, progress)
        if zipfile.is_zipfile(archive):
            unpacking.unpack_zip()
        else:
            unpacking.unpack_tar()
    return find_model(target, shown)


@contextmanager
def one_line_errors(shown: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:
        raise CheckpointError(f"{shown} is not a tar or zip archive, or is damaged: {error}") from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise CheckpointError(f"{shown} has a file and a folder of the same name") from error


class Unpacking:
    def __init__(self, archive: Path, target: Path, shown: str, progress: Progress) -> None:
        self.archive, self.target, self.shown, self.progress = archive, target, shown, progress
        self.bytes_left = max(BYTES_ALWAYS_ALLOWED, archive.stat().st_size * EXPANSION_MAX)
        self.members_left = MEMBERS_MAX
        self.links: dict[str, str] = {}  # path of the link -> path in the archive

    def unpack_tar(self) -> None:
        with self.open_tar() as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
            for member in tar:
                path = self.check_path(member.name)
                if member.isdir():
                    (self.target / path).mkdir(parents=True, exist_ok=True)
                elif member.isreg() and (content := tar.extractfile(member)):
                    self.write(path, content, member.size)
                elif member.issym():
                    self.add_link(path, posixpath.join(posixpath.dirname(member.name), member.linkname))
                elif member.islnk():
                    self.add_link(path, member.linkname)
                else:
                    raise self.refusal(f"{member.name}, which is neither a file nor a folder")
        self.make_links()

    @contextmanager
    def open_tar(self) -> Iterator[IO[bytes]]:
        """Yields the archive, without zstandard compression: tarfile reads the other kinds itself."""
        with self.archive.open("rb") as file:
            is_zstandard = file.read(len(ZSTANDARD_MAGIC)) == ZSTANDARD_MAGIC
            file.seek(0)
            if not is_zstandard:
                yield file
                return
            try:
                import zstandard
            except ImportError:
                raise CheckpointError(f"{self.shown} needs zstandard: pip install zstandard") from None
            try:
                with zstandard.ZstdDecompressor().stream_reader(file) as reader:
                    yield reader
            except zstandard.ZstdError as error:
                raise CheckpointError(f"{self.shown} is a damaged archive: {error}") from error

    def unpack_zip(self) -> None:
        with zipfile.ZipFile(self.archive) as zipped:
            for member in zipped.infolist():
                path = self.check_path(member.filename)
                if (member.external_attr >> 16) & TYPE_MASK == SYMLINK_MODE:
                    raise self.refusal(f"{member.filename}, which is a link")
                if member.flag_bits & 1:
                    raise self.refusal(f"{member.filename}, which is encrypted")
                if member.is_dir():
                    (self.target / path).mkdir(parents=True, exist_ok=True)
                else:
                    with zipped.open(member) as content:
                        self.write(path, content, member.file_size)

    def check_path(self, name: str) -> PurePosixPath:
        self.members_left -= 1
        if self.members_left < 0:
            raise self.refusal(f"more than {MEMBERS_MAX} files")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise self.refusal(f"{name!r}, which leads out of the folder")
        return path

    def write(self, path: PurePosixPath, content: IO[bytes], size: int) -> None:
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise self.refusal(f"far more than its own {spelled_size(self.archive.stat().st_size)}")
        if size > free_bytes(self.target):
            left = spelled_size(free_bytes(self.target))
            raise CheckpointError(f"{path} of {self.shown} needs {spelled_size(size)}, and the disk has {left} left")
        target = self.target / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(content, file, COPY_BYTES)
        self.progress.add(size)

    def add_link(self, path: PurePosixPath, goal: str) -> None:
        goal = posixpath.normpath(goal)
        if goal.startswith(("/", "..")):
            raise self.refusal(f"the link {path}, which leads out of the folder")
        self.links[str(path)] = goal

    def make_links(self) -> None:
        """Makes hard links, which take no space. A link may point to another link."""
        for path, first in self.links.items():
            goal = first
            for _ in self.links:
                goal = self.links.get(goal, goal)
            source, target = self.target / goal, self.target / path
            if not source.is_file():
                raise self.refusal(f"the link {path} to {goal}, which is no file in it")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.hardlink_to(source)

    def refusal(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.shown} holds {what}: it is not unpacked")


def find_model(folder: Path, shown: str) -> Path:
    if (folder / "config.json").is_file():
        return folder
    inner = [path for path in folder.iterdir() if path.name not in CLUTTER and not path.name.startswith("._")]
    if len(inner) == 1 and inner[0].is_dir():
        return find_model(inner[0], shown)
    names = ", ".join(sorted(path.name for path in inner)[:5])
    raise CheckpointError(f"{shown} holds no model: there is no config.json in it, but {names or 'nothing'}")
