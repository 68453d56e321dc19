"""The interface of a bucket or web server that holds a model, for `remote_folder`. `buckets` and `web` implement it."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Protocol

from heddle.checkpoint.json_files import CheckpointError
from heddle.remote.downloads import FileSource, RemoteFile


class RemoteModel(FileSource, Protocol):
    def list_files(self) -> list[RemoteFile]:
        """Returns the files below the address, or the one file at the address. Raises StoreError."""


def check_is_model(files: Sequence[RemoteFile], shown: str) -> None:
    """Raises CheckpointError for a folder without config.json, or with a path that leads out of the folder."""
    for file in files:
        if ".." in PurePosixPath(file.path).parts or PurePosixPath(file.path).is_absolute():
            raise CheckpointError(f"{shown} has a file {file.path!r}, which leads out of the folder")
    if not any(file.path == "config.json" for file in files):
        names = ", ".join(file.path for file in files[:5])
        raise CheckpointError(f"{shown} holds no model: there is no config.json in it, but {names}")
