"""Makes the folder for the unix sockets of `heddle serve`, and removes folders that killed processes left behind.

Each folder has a lock file that its owner keeps locked. If the lock is free, the owner is gone.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from heddle.rpc.settings import ConfigurationError

PREFIX = "heddle-"
LOCK = "heddle-serve.lock"
# The address of a unix socket has at most 104 bytes on macOS and 108 on Linux, including the terminating zero.
ADDRESS_BYTES_MAX = 103
LONGEST_NAME = f"{PREFIX}12345678/engine-1000"


class SocketFolder:
    """A new folder, and its lock. The system releases the lock when the process ends for whatever reason."""

    def __init__(self, parent: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # The file is locked before it gets its name, so no other process finds it unlocked.
        unlocked = self.path / "unlocked"
        self._lock = os.open(unlocked, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unlocked.rename(self.path / LOCK)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


@contextlib.contextmanager
def socket_folder(environ: Mapping[str, str]) -> Iterator[SocketFolder]:
    """Makes a folder in XDG_RUNTIME_DIR, if that belongs to this user, or among the temporary files. First removes the
    folders of dead processes in both places. Raises ConfigurationError if no folder can be made."""
    parents = find_parents(environ)
    for parent in parents:
        remove_abandoned(parent)
    if not parents:
        raise ConfigurationError(
            "no folder for sockets: set XDG_RUNTIME_DIR or TMPDIR to a writable folder with a short path"
        )
    folder = SocketFolder(parents[0])
    try:
        yield folder
    finally:
        folder.remove()


def find_parents(environ: Mapping[str, str]) -> list[Path]:
    """Returns the usable parent folders, best first."""
    runtime = Path(environ.get("XDG_RUNTIME_DIR", ""))
    parents = [runtime] if runtime.is_absolute() and is_own_folder(runtime) else []
    parents += [Path(tempfile.gettempdir()), Path("/tmp")]
    return [parent for parent in dict.fromkeys(parents) if is_usable(parent)]


def is_usable(parent: Path) -> bool:
    """Whether the folder is writable and its path short enough for the address of a socket."""
    return len(os.fsencode(parent / LONGEST_NAME)) <= ADDRESS_BYTES_MAX and os.access(parent, os.W_OK | os.X_OK)


def remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        if is_own_folder(folder):
            with contextlib.suppress(OSError):
                remove_unless_locked(folder)


def remove_unless_locked(folder: Path) -> None:
    """Raises OSError if the folder has no lock file or its lock is held."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def is_own_folder(path: Path) -> bool:
    """Whether the path is a folder of this user, not a link to one."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
