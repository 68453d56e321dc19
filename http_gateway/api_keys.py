"""Who may call: the key in the Authorization header, as OpenAI's clients (Bearer) and Baseten's (Api-Key) send it, or
in the api-key header, as Azure's do.

Only hashes of the keys are kept. `http_gateway.__main__` reads the keys, the app checks each request.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.priorities import is_priority
from http_gateway.message import Headers

SCHEMES = ("bearer", "api-key")

# A key in the file that is stated by its hash: the output of `printf %s KEY | sha256sum`.
HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    digest: bytes  # SHA-256 of the key
    name: str = ""  # for people
    best_priority: int | None = None  # the smallest that its requests may ask for; None: what the gateway allows all

    @property
    def flow(self) -> str:
        """Tells keys apart at the engines, also for several gateways, and shows nothing of the key."""
        return self.digest.hex()[:16]


class ApiKeys:
    def __init__(self, keys: Iterable[ApiKey]) -> None:
        """Without keys everybody may call. Raises ValueError for one that is there twice."""
        self._keys: dict[bytes, ApiKey] = {}
        for key in keys:
            if key.digest in self._keys:
                raise ValueError(f"the key {key.name or '(of api_keys)'} is there twice")
            self._keys[key.digest] = key

    def find(self, headers: Headers) -> ApiKey | None:
        """The key of a request; None where none is needed. Raises UNAUTHENTICATED.

        The look-up takes longer or shorter by what the hash begins with. That tells nothing of a key: nobody can choose
        keys by the beginning of their hash."""
        if not self._keys:
            return None
        stated = headers.get("authorization")
        if not stated and (own := headers.get("api-key")):
            stated = f"Api-Key {own}"
        scheme, _, key = (stated or "").partition(" ")
        if not key:
            raise unauthenticated("a key is required: Authorization: Bearer KEY")
        found = self._keys.get(digest_of(key.strip())) if scheme.lower() in SCHEMES else None
        if found is None:
            raise unauthenticated("the key is not valid here")
        return found


def keys_of(stated: Sequence[str], file: Path | None) -> list[ApiKey]:
    """The keys that the settings state, and those of the file. Raises ValueError, which shows no key."""
    keys = [ApiKey(digest_of(key)) for key in dict.fromkeys(stated)]
    if file is None:
        return keys
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"api_keys_file: cannot read {file}: {error}") from None
    for number, line in enumerate(lines, 1):
        if words := line.partition("#")[0].split():
            keys.append(key_of(words, f"api_keys_file: line {number} of {file}"))
    if not keys:
        raise ValueError(f"api_keys_file: there is no key in {file}, so that nobody could call")
    return keys


def key_of(words: Sequence[str], place: str) -> ApiKey:
    """Of one line: a name, the key or its hash, and the best priority that it may ask for, which can be left out."""
    if len(words) not in (2, 3):
        raise ValueError(f"{place} is not: name, key or sha256:HASH, and maybe a priority")
    name, key, *priority = words
    if priority and not is_priority(priority[0]):
        raise ValueError(f"{place}: the priority must be a whole number from 0 on")
    hashed = HASHED.fullmatch(key)
    if key.startswith("sha256:") and not hashed:
        raise ValueError(f"{place}: sha256: is followed by 64 hexadecimal digits")
    digest = bytes.fromhex(hashed[1]) if hashed else digest_of(key)
    return ApiKey(digest, name, int(priority[0]) if priority else None)


def digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def unauthenticated(message: str) -> HeddleError:
    return HeddleError(ErrorKind.UNAUTHENTICATED, message)
