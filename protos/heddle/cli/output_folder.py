"""Writes a build to `heddle build --output` atomically. `build_command` calls this.

The build goes to a hidden folder beside the output first, or inside the output if that exists and is empty, because it
may be a mounted volume. The process locks its hidden folder, so that others can remove those of killed processes.
"""

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from heddle.artifacts.manifest import NAME as MANIFEST

RANDOM_BYTES = 8


def has_content(output: Path) -> bool:
    """Ignores temporary folders of killed processes."""
    return any(not is_temporary(place, output) for place in output.iterdir())


def is_temporary(place: Path, output: Path) -> bool:
    name = rf"\.{re.escape(output.absolute().name)}\.[0-9a-f]{{{2 * RANDOM_BYTES}}}"
    return place.is_dir() and re.fullmatch(name, place.name) is not None


@contextmanager
def temporary_folder(output: Path) -> Iterator[Path]:
    """Yields a new folder, and removes it at the end if it still exists. Also removes those of killed processes. Raises
    OSError."""
    output = output.absolute()
    is_inside = output.is_dir() and (output.is_mount() or not has_content(output))
    parent = output if is_inside else output.parent
    parent.mkdir(parents=True, exist_ok=True)
    place = parent / f".{output.name}.{secrets.token_hex(RANDOM_BYTES)}"
    with ExitStack() as stack:
        # Registered before the folder exists, because a signal may come right after.
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        with locked(parent, wait=True):  # so that nobody finds the new folder before it is locked
            remove_abandoned(parent, output)
            place.mkdir()
            stack.enter_context(locked(place, wait=True))
        yield place


def remove_abandoned(parent: Path, output: Path) -> None:
    for place in parent.iterdir():
        if is_temporary(place, output):
            with suppress(BlockingIOError), locked(place, wait=False) as is_locked:
                if is_locked:
                    shutil.rmtree(place, ignore_errors=True)


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Yields False on a file system without locks. Raises BlockingIOError if another process has the lock and `wait`
    is False. The system releases the lock of a process that dies."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def replace_folder(output: Path, place: Path) -> None:
    """Moves `place`, made by `temporary_folder`, to `output`, then removes the earlier build there. Raises OSError."""
    output = output.absolute()
    if place.parent == output:
        fill_folder(output, place)
        return
    if not output.exists():
        place.rename(output)
        return
    with temporary_folder(output) as old:
        output.rename(old / "build")
        try:
            place.rename(output)
        except OSError:
            (old / "build").rename(output)
            raise


def fill_folder(output: Path, place: Path) -> None:
    """Removes the old manifest first and adds the new one last, because a folder with a manifest counts as a build."""
    (output / MANIFEST).unlink(missing_ok=True)
    for old in output.iterdir():
        if old.is_dir() and not is_temporary(old, output):
            shutil.rmtree(old)
        elif not old.is_dir():
            old.unlink()
    for new in sorted(place.iterdir(), key=lambda path: path.name == MANIFEST):
        new.rename(output / new.name)
