"""Says in one line that a download does not fit on the disk, or may not be written. Called by `downloads`, `artifacts`
and the sources of models."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from heddle.progress import spelled_size

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def describe_disk_error(error: BaseException, name: str, cache: str | Path, variable: str) -> str | None:
    """Returns None if the disk did not cause the error. `variable` is the setting that moves the cache."""
    for each in chain(error):
        if isinstance(each, OSError) and each.errno in FULL:
            return (
                f"no room for {name} in {cache} ({spelled_size(free_bytes(cache))} free): free some, "
                f"or set {variable} to a folder on another disk"
            )
        if isinstance(each, OSError) and each.errno in CLOSED:
            return f"{each.filename or cache} cannot be written: set {variable} to a folder that can"
    return None


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yields the error and those that caused it."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def free_bytes(folder: str | Path) -> int:
    """Returns the free space of the disk that holds the folder, which need not exist yet."""
    place = Path(folder).expanduser()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free
