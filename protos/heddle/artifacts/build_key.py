"""Keys that identify builds.

`build_key` hashes the checkpoint's files and the settings, so two builds with the same key have the same bytes.
`BuildRequest.key` hashes what a config asks for, so that a pod finds a build in a store without the checkpoint.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from heddle.artifacts.manifest import FORMAT_VERSION, FileEntry


def build_key(files: Iterable[FileEntry], settings: Mapping[str, Any]) -> str:
    """Returns 64 hexadecimal digits. `files` are those that the build reads, in any order. `settings` holds JSON
    values; None is the same as no value. Raises TypeError or ValueError for other values."""
    return hash_json(
        {
            "format_version": FORMAT_VERSION,
            "files": sorted([entry.path, entry.sha256] for entry in files),
            "settings": without_absent(settings),
        }
    )


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What a config asks for: a model, and how to build it."""

    model: str  # hub name or address
    revision: str  # as the config states it; "" is the default branch
    settings: Mapping[str, Any]  # as in `build_key`

    @property
    def key(self) -> str:
        """64 hexadecimal digits. A branch or a tag has a different key from its commit."""
        return hash_json(self.describe())

    def describe(self) -> dict[str, Any]:
        """Returns the request as JSON values: the key hashes them, and a ref in a store shows them."""
        return {
            "format_version": FORMAT_VERSION,
            "model": self.model,
            "revision": self.revision,
            "settings": without_absent(self.settings),
        }


def without_absent(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def hash_json(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
