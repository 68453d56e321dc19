"""Writes small artifacts: a folder with a manifest."""

import random
from collections.abc import Mapping
from pathlib import Path

from heddle.artifacts.build_key import BuildRequest
from heddle.artifacts.manifest import Manifest, Source, describe_files, write_manifest

FILES = {"config.json": b"{}\n", "model.safetensors": b"weights" * 1000, "1_Pooling/config.json": b'{"a": 1}\n'}

REQUEST = BuildRequest("owner/name", "main", {"quantization": "fp8"})


def write_artifact(folder: Path, files: Mapping[str, bytes] = FILES, **settings: object) -> str:
    """Returns the digest."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    source = Source("owner/name", "c" * 40, ())
    return write_manifest(folder, Manifest(1, "0.1.0", source, settings, None, describe_files(folder)))


def make_bytes(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
