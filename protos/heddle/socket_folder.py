"""The folder of the sockets between the services of one machine. Used by heddle.serve.

A process that is killed outright cannot remove its folder; the next `heddle serve` does. Each folder has a file that
its owner keeps locked for as long as it lives: a lock that can be had is that of a dead owner.
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
# An address of a unix socket has 104 bytes on macOS and 108 on Linux, a final zero included.
ADDRESS_BYTES_MAX = 103
LONGEST_NAME = f"{PREFIX}12345678/engine-1000"


class SocketFolder:
    """Made with its lock held, which the end of the process gives up whatever ends it."""

    def __init__(self, parent: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # Another process that starts meanwhile sees no lock before it is held.
        unlocked = self.path / "unlocked"
        self._lock = os.open(unlocked, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unlocked.rename(self.path / LOCK)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


@contextlib.contextmanager
def socket_folder(environ: Mapping[str, str]) -> Iterator[SocketFolder]:
    """A new one, in XDG_RUNTIME_DIR where that is a folder of this user's, else among the temporary files. Removes
    those that dead processes left in either. Raises ConfigurationError where none can be made."""
    parents = possible_parents(environ)
    for parent in parents:
        remove_abandoned(parent)
    if not parents:
        raise ConfigurationError("no folder for sockets: neither XDG_RUNTIME_DIR, TMPDIR nor /tmp can be written to")
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
    """Some systems have temporary folders whose names leave no room for that of a socket."""
    return len(os.fsencode(parent / LONGEST_NAME)) <= ADDRESS_BYTES_MAX and os.access(parent, os.W_OK | os.X_OK)


def remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        if is_own_folder(folder):
            with contextlib.suppress(OSError):
                remove_unless_locked(folder)


def remove_unless_locked(folder: Path) -> None:
    """Raises OSError where the folder has no lock, or one that a process holds."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def is_own_folder(path: Path) -> bool:
    """Of this user, and no link to one."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
