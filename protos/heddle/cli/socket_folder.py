"""The folder for the sockets between the services of one machine. Used by `serve`.

A process that is killed cannot remove its folder, so the next `heddle serve` does. Each folder has a lock file, which
its owner keeps locked as long as it runs: if the lock is free, the owner is gone.
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
# The address of a unix socket has at most 104 bytes on macOS and 108 on Linux, with the final zero.
ADDRESS_BYTES_MAX = 103
LONGEST_NAME = f"{PREFIX}12345678/engine-1000"


class SocketFolder:
    """Creates the folder and locks it. The system releases the lock when the process ends, however it ends."""

    def __init__(self, parent: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # The file gets its name once it is locked, so that no other process finds an unlocked one.
        unlocked = self.path / "unlocked"
        self._lock = os.open(unlocked, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unlocked.rename(self.path / LOCK)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


@contextlib.contextmanager
def socket_folder(environ: Mapping[str, str]) -> Iterator[SocketFolder]:
    """Makes a new folder: in XDG_RUNTIME_DIR if it belongs to this user, else among the temporary files. Also removes
    folders that dead processes left in either place. Raises ConfigurationError if no folder can be made."""
    parents = possible_parents(environ)
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


def possible_parents(environ: Mapping[str, str]) -> list[Path]:
    """Best first."""
    runtime = Path(environ.get("XDG_RUNTIME_DIR", ""))
    parents = [runtime] if runtime.is_absolute() and is_own_folder(runtime) else []
    parents += [Path(tempfile.gettempdir()), Path("/tmp")]
    return [parent for parent in dict.fromkeys(parents) if is_usable(parent)]


def is_usable(parent: Path) -> bool:
    """Whether sockets can be made there: the folder is writable, and its path short enough for a socket's address."""
    return len(os.fsencode(parent / LONGEST_NAME)) <= ADDRESS_BYTES_MAX and os.access(parent, os.W_OK | os.X_OK)


def remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        if is_own_folder(folder):
            with contextlib.suppress(OSError):
                remove_unless_locked(folder)


def remove_unless_locked(folder: Path) -> None:
    """Raises OSError if the folder has no lock file, or a process holds the lock."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def is_own_folder(path: Path) -> bool:
    """Whether it is a folder of this user, and not a link to one."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
