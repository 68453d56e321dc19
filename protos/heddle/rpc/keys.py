"""API keys: callers send `Authorization: Bearer KEY` or `Api-Key KEY` as an HTTP header or gRPC metadata.

Each service's `__main__` loads the keys. The gateway checks each request, `interceptor` each call, and `stream_server`
each frame, so a key that is removed from the file ends open streams too. Only hashes are kept.
"""

import hashlib
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from heddle.rpc.credentials import WatchedFiles
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.fairness import PRIORITY_MAX, is_priority
from heddle.rpc.settings import ConfigurationError

SCHEMES = ("bearer", "api-key")

# How often the keys file is checked for changes.
FILE_CHECK_S = 1.0

# A key given as its hash, the output of `printf %s KEY | sha256sum`.
HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")

log = logging.getLogger(__name__)

# Checks the key of the current gRPC call, and returns the smallest priority that its items may have.
check_key: ContextVar[Callable[[], int]] = ContextVar("check_key", default=lambda: 0)


@dataclass(frozen=True, slots=True)
class ApiKey:
    digest: bytes  # SHA-256 of the key
    name: str = ""  # for the log
    best_priority: int | None = None  # smallest priority its requests may have; None: the gateway's best_priority

    @property
    def flow(self) -> str:
        """The key's name in a flow: the same at every gateway, without revealing the key."""
        return self.digest.hex()[:16]


def index_keys(keys: Iterable[ApiKey]) -> dict[bytes, ApiKey]:
    """By digest. Raises ValueError for a duplicate key."""
    indexed: dict[bytes, ApiKey] = {}
    for key in keys:
        if key.digest in indexed:
            raise ValueError(f"api_keys_file: {key.name!r} has a key that is listed twice: remove one of the two")
        indexed[key.digest] = key
    return indexed


class ApiKeys:
    def __init__(self, keys: Iterable[ApiKey]) -> None:
        """Without keys anybody may call. Raises ValueError for a duplicate key."""
        self._keys = index_keys(keys)
        self._stated: Sequence[str] = ()
        self._file: Path | None = None
        self._watched = WatchedFiles()
        self._next_file_check = math.inf  # time.monotonic()

    @classmethod
    def load(cls, stated: Sequence[str], file: Path | None) -> "ApiKeys":
        """Loads the settings api_keys and api_keys_file. The file is read again when it changes. Raises
        ConfigurationError, whose message contains no key."""
        watched = WatchedFiles(file)
        try:
            keys = cls(load_keys(stated, file))
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        if file:
            keys._stated, keys._file, keys._watched, keys._next_file_check = stated, file, watched, 0.0
        return keys

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, authorization: str | None) -> ApiKey | None:
        """The key of a request, or None if no keys are configured. Raises UNAUTHENTICATED.

        The look-up is by hash, so its time reveals nothing about the keys."""
        if not self._keys:
            return None
        if time.monotonic() >= self._next_file_check:
            self._read_changes()
        scheme, _, key = (authorization or "").partition(" ")
        if not key:
            raise unauthenticated("a key is required: Authorization: Bearer KEY")
        found = self._keys.get(hash_key(key.strip())) if scheme.lower() in SCHEMES else None
        if found is None:
            raise unauthenticated("the key is not valid")
        return found

    def _read_changes(self) -> None:
        self._next_file_check = time.monotonic() + FILE_CHECK_S
        if not self._watched.have_changed():
            return
        try:
            self._keys = index_keys(load_keys(self._stated, self._file))
        except ValueError as error:
            log.warning("keeping the old keys: %s", error)
        else:
            log.info("read %s again: %d keys", self._file, len(self._keys))


NO_KEYS = ApiKeys(())


def load_keys(stated: Sequence[str], file: Path | None) -> list[ApiKey]:
    """Reads the keys of the settings, which are named key-1, key-2 and so on, and of the file. Raises ValueError, whose
    message contains no key."""
    keys = [ApiKey(hash_key(key), f"key-{number}") for number, key in enumerate(dict.fromkeys(stated), 1)]
    if file is None:
        return keys
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"api_keys_file: cannot read {file}: {error}") from None
    for number, line in enumerate(lines, 1):
        if words := line.partition("#")[0].split():
            keys.append(parse_key(words, f"api_keys_file: line {number} of {file}"))
    if not keys:
        raise ValueError(f"api_keys_file: {file} holds no key: add one, or unset the setting")
    return keys


def parse_key(words: Sequence[str], place: str) -> ApiKey:
    """`words` are a line's: a name, the key or its hash, and optionally the key's best priority."""
    if len(words) not in (2, 3):
        raise ValueError(f"{place} must have a name, a key or sha256:HASH, and optionally a priority")
    name, key, *priority = words
    if priority and not is_priority(priority[0]):
        raise ValueError(f"{place}: the priority must be a whole number from 0 to {PRIORITY_MAX}")
    hashed = HASHED.fullmatch(key)
    if key.startswith("sha256:") and not hashed:
        raise ValueError(f"{place}: sha256: must be followed by 64 hexadecimal digits")
    digest = bytes.fromhex(hashed[1]) if hashed else hash_key(key)
    return ApiKey(digest, name, int(priority[0]) if priority else None)


def hash_key(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def unauthenticated(message: str) -> HeddleError:
    return HeddleError(ErrorKind.UNAUTHENTICATED, message)
