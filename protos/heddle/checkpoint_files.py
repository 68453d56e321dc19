"""Reading the JSON files of a checkpoint folder, with an error that says which file is at fault."""

import json
from pathlib import Path
from typing import Any

from heddle.rpc.settings import ConfigurationError


class CheckpointError(ConfigurationError):
    """A checkpoint that cannot be served: one sentence that names the folder or file, fit to be shown as it is."""


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        missing = f"no {path.name}" if path.parent.is_dir() else "no such folder"
        raise CheckpointError(f"{path.parent} is not a model folder: {missing}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def parse_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; a file that is missing, broken or holds something else is a CheckpointError."""
    content = parse_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return content


def read_json_if_there(path: Path) -> dict[str, Any]:
    """As `read_json`, {} where there is no file."""
    return read_json(path) if path.is_file() else {}
