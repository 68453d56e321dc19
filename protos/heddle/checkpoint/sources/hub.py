"""Downloads a model from the Hugging Face Hub into the cache of huggingface_hub.

huggingface_hub lists and downloads the files, several at once, and lets other processes wait for a file that one of
them is downloading. This module adds what it lacks: it tries again after an error of the server, and checks the hash of
new files. Its settings apply (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT).
"""

import hashlib
import importlib.util
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.sources.hub_errors import describe, find_errno, find_status
from heddle.progress import is_terminal, logged_bar, say
from heddle.remote.addresses import hide_secrets
from heddle.remote.disk_errors import FULL

TRIES = 4
FIRST_WAIT_S = 1.0
HUB_S_MAX = 10.0
# Statuses of a busy or failing server.
TRANSIENT = frozenset({429, 500, 502, 503, 504})

BROKEN_CONNECTION = ("ReadError", "RemoteProtocolError")

# huggingface_hub names the blob of a file in git LFS by its hash.
SHA256 = re.compile(r"[0-9a-f]{64}")


def download(name: str, revision: str | None, patterns: Sequence[str], *, ignored: Sequence[str]) -> Path:
    """Returns the folder of the snapshot, which is named by its commit. Files in the cache are not downloaded again,
    and are used as they are if the hub cannot be reached. Raises CheckpointError."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise CheckpointError(
            f"{name} is not a folder, and huggingface_hub is not installed to download it: "
            f"pip install 'heddle[sources]'"
        )
    known, wait_s = list_blobs(name), FIRST_WAIT_S
    for tries_left in reversed(range(TRIES)):
        try:
            folder = take_current(name, revision, patterns, ignored)
        except Exception as error:  # HTTP, offline, gated, malformed name, disk: these errors have no common base class
            if not (tries_left and is_transient(error)):
                raise CheckpointError(describe(error, name, revision)) from error
            say(f"{describe(error, name, revision)}; trying again in {wait_s:.0f} s")
        else:
            wrong = delete_wrong_files(folder, known)
            if not wrong:
                return folder
            line = f"{', '.join(wrong)} of {name} arrived with a wrong hash"
            if not tries_left:
                raise CheckpointError(f"{line}, {TRIES} times: something between here and the hub changes it")
            say(f"{line}; downloading them again in {wait_s:.0f} s")
        time.sleep(wait_s)
        wait_s *= 2
    raise AssertionError("the last try returns or raises")


def take_current(name: str, revision: str | None, patterns: Sequence[str], ignored: Sequence[str]) -> Path:
    """huggingface_hub does not say whether it uses the cache because the hub is away or refuses the token. So the hub
    is asked here for the commit of a model that is in the cache."""
    from huggingface_hub import HfApi, constants, errors

    commit = read_cached_commit(name, revision)
    if commit is None or constants.HF_HUB_OFFLINE:
        return take_snapshot(name, revision, patterns, ignored)
    try:
        current = HfApi().model_info(name, revision=revision, timeout=HUB_S_MAX).sha
    except errors.RevisionNotFoundError:
        raise
    except Exception as error:  # they have no common base class
        if is_transient(error) and find_status(error) is None:
            raise
        try:
            folder = take_snapshot(name, revision, patterns, ignored, asks_hub=False)
        except errors.LocalEntryNotFoundError:
            raise error from None
        say(f"{describe(error, name, revision, is_cached=True)}; serving the download of {commit[:12]}")
        return folder
    return take_snapshot(name, commit if current == commit else revision, patterns, ignored)


def read_cached_commit(name: str, revision: str | None) -> str | None:
    """Returns the commit of a branch or tag when the hub was last asked, or None. Commits have no entry there."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE).expanduser() / f"models--{name.replace('/', '--')}" / "refs"
    path = folder / (revision or "main")
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def take_snapshot(
    name: str, revision: str | None, patterns: Sequence[str], ignored: Sequence[str], *, asks_hub: bool = True
) -> Path:
    from huggingface_hub import snapshot_download

    with without_signatures():
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(ignored),
                local_files_only=not asks_hub,
                tqdm_class=None if is_terminal() else logged_bar(f"downloading {name}"),
            )
        )


def is_transient(error: BaseException) -> bool:
    status = find_status(error)
    if status is not None:
        return status in TRANSIENT
    is_incomplete = "Consistency check failed" in str(error) or type(error).__name__ in BROKEN_CONNECTION
    return is_incomplete and find_errno(error) not in FULL


class WithoutQueries(logging.Filter):
    """Removes signatures of addresses from the library's warnings: anyone can read a file with its signature."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = hide_secrets(record.getMessage()), ()
        return True


@contextmanager
def without_signatures() -> Iterator[None]:
    library, cleaner = logging.getLogger("huggingface_hub.file_download"), WithoutQueries()
    library.addFilter(cleaner)
    try:
        yield
    finally:
        library.removeFilter(cleaner)


def list_blobs(name: str) -> frozenset[str]:
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE).expanduser() / f"models--{name.replace('/', '--')}" / "blobs"
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()


def delete_wrong_files(snapshot: Path, known: frozenset[str]) -> list[str]:
    """Deletes files whose hash differs from the name of their blob, and returns their paths. Does not read the blobs in
    `known`."""
    files = [path for path in sorted(snapshot.rglob("*")) if path.is_symlink()]
    blobs = {path: path.resolve() for path in files}
    new = [path for path, blob in blobs.items() if SHA256.fullmatch(blob.name) and blob.name not in known]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        wrong = [path for path, is_right in zip(new, pool.map(has_stated_hash, new), strict=True) if not is_right]
    for path in wrong:
        blobs[path].unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    return [path.relative_to(snapshot).as_posix() for path in wrong]


def has_stated_hash(path: Path) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == path.resolve().name
