"""Recognises what a failed download leaves behind: a Git LFS pointer, a web page, an empty file, or part of a file.

Called where a file of a checkpoint cannot be read. The libraries' own errors do not explain it: safetensors,
for example, reads the first letters of a web page as the length of a header.
"""

import json
from pathlib import Path
from typing import Any

START_BYTES = 512
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# How the pages of proxies and logins begin, and the errors of object stores.
PAGES = (b"<!doctype html", b"<html", b"<?xml")

# The limit of the safetensors format.
HEADER_BYTES_MAX = 100_000_000
LENGTH_BYTES = 8  # before the header


def explain(path: Path) -> str | None:
    """Returns the end of a sentence that begins with the path, or None if the file looks right."""
    try:
        with path.open("rb") as file:
            return explain_start(file.read(START_BYTES))
    except OSError:
        return None


def explain_start(start: bytes) -> str | None:
    """Does what `explain` does, for the first bytes of a file."""
    if not start:
        return "is empty: download it again"
    if start.startswith(LFS_POINTER):
        return "is a Git LFS pointer, not the file itself: run git lfs pull, or download it again"
    if start.lstrip().lower().startswith(PAGES):
        return "holds a web page, not the file itself: download it again"
    return None


def explain_safetensors(path: Path) -> str | None:
    """Does what `explain` does, for a file that should hold safetensors. Also recognises a file without its end."""
    try:
        size, expected = path.stat().st_size, count_expected_bytes(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return explain(path)
    return explain(path) or (f"is cut off: it has {size} of {expected} bytes" if size < expected else None)


def count_expected_bytes(path: Path) -> int:
    """Returns the size that the whole file should have. If the header itself is cut off, returns the size up to the end
    of the header. Raises what `read_header` raises, and LookupError, TypeError or AttributeError for a broken one."""
    with path.open("rb") as file:
        length = read_header_length(file.read(LENGTH_BYTES))
    if path.stat().st_size < LENGTH_BYTES + length:
        return LENGTH_BYTES + length
    ends = [entry["data_offsets"][1] for name, entry in read_header(path).items() if name != "__metadata__"]
    return LENGTH_BYTES + length + max(ends, default=0)


def read_header(path: Path) -> dict[str, Any]:
    """Returns the header of a safetensors file. Raises OSError or ValueError for a file without one."""
    with path.open("rb") as file:
        content = file.read(read_header_length(file.read(LENGTH_BYTES)))
    try:
        header = json.loads(content)
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")  # noqa: TRY004 - the caller takes both for a broken file
    return header


def read_header_length(start: bytes) -> int:
    length = int.from_bytes(start, "little")
    if length > HEADER_BYTES_MAX:
        raise ValueError("its header is too long")
    return length
